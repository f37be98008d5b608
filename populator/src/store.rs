//! Object stores that speak S3: which BackupStore serves a URL, what lies there and has lain there, and
//! URLs signed for one object.
//!
//! Nothing here knows Kubernetes beyond the types of the API. An object is looked at through the
//! very kind of URL that an agent will get, so that what works here works there.

mod access;
mod addresses;
mod answer;
mod error;
mod listing;
mod location;
mod object;
mod upload;

pub use access::{Access, Credentials, SignedUrl};
pub(crate) use addresses::cause;
pub use addresses::{Addresses, Allowance, Denied};
pub use answer::Found;
pub use error::{StoreError, StoreErrorDiscriminants};
pub use listing::{Entry, Version};
pub use location::{Location, ObjectUrl, PrefixUrl, longest_prefix};
pub(crate) use object::identity;
pub use object::{Object, OpenError, S3};
pub use upload::Upload;
