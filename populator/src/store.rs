//! Object stores that speak S3: which BackupStore serves a URL, what lies there, and URLs signed
//! for one object.
//!
//! Nothing here knows Kubernetes beyond the types of the API. An object is looked at through the
//! very kind of URL that an agent will get, so that what works here works there.

mod access;
mod answer;
mod error;
mod location;
mod object;
mod upload;

pub use access::{Access, Credentials, SignedUrl};
pub use answer::Found;
pub use error::{StoreError, StoreErrorDiscriminants};
pub use location::{ObjectUrl, longest_prefix};
pub(crate) use object::identity;
pub use object::{Object, OpenError, S3};
pub use upload::Upload;
