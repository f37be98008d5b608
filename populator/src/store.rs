//! Where archives lie (stores that speak S3, Google Cloud Storage, Azure Blob Storage, web servers, a directory):
//! which BackupStore serves a URL, what lies there and has lain there, and URLs signed for one object.
//!
//! Nothing here knows Kubernetes beyond the types of the API. An object is looked at through the
//! very kind of URL that an agent will get, so that what works here works there.

mod access;
mod addresses;
mod ambient;
mod answer;
mod credentials;
mod error;
mod files;
mod listing;
mod location;
mod object;
mod server;
mod signer;
mod upload;
mod web;

pub use access::{Access, Reach, SignedUrl};
pub(crate) use addresses::cause;
pub use addresses::{Addresses, Allowance, Denied};
pub use ambient::Ambient;
pub use answer::Found;
pub use credentials::Credentials;
pub use error::{StoreError, StoreErrorDiscriminants};
pub use files::{FileRoot, Pinned};
pub use listing::{Entry, Version};
pub use location::{Location, ObjectUrl, PrefixUrl, Scheme, longest_prefix, shown};
pub(crate) use object::identity;
pub use object::{Object, OpenError, S3};
pub use upload::Upload;
pub(crate) use web::archive;
