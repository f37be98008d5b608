//! Streams an archive from ranged reads into a directory, confined, bounded and verified. Knows no
//! Kubernetes, no CSI and no object store. A pipeline, each stage in a module:
//!
//! | module | what happens there |
//! |---|---|
//! | [`source`] | where the bytes come from: the trait that a caller implements |
//! | `fetch` | ranges of it in parallel, retried, in order (tasks of a tokio runtime) |
//! | `format`, `decode` | what it is by its first bytes; decryption and decompression (a thread each) |
//! | `tar_reader`, `entry`, `path`, `acl` | headers of every tar dialect become entries |
//! | `reading` | all of these started, and judged at the end |
//! | `restore` | entries become files beneath a root (the caller's thread, small ones by several), or an image a disk's content; made durable |
//! | `examine` | entries are looked at and nothing is written |
//! | `pack`, `index` | the way back: a tree becomes an archive of our own, with an index of its entries |
//! | `stream` | how bytes pass between the stages |
//! | `checkpoint` | how far a restore is, so that it can go on |
//! | `budget` | the memory that all restores share |
//! | `options`, `selection`, `ownership`, `limits`, `identity` | what a caller chooses |
//! | `progress`, `outcome`, `error` | what a caller sees: on the way, at the end, and why not |

mod acl;
mod budget;
mod checkpoint;
mod decode;
mod digest;
mod entry;
mod error;
mod examine;
mod fetch;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod index;
mod limits;
mod options;
mod outcome;
mod ownership;
mod pack;
mod path;
mod progress;
mod reading;
mod restore;
mod selection;
pub mod source;
mod stream;
mod tar_reader;

pub use budget::{Budget, WINDOW_MAX};
pub use checkpoint::Checkpoints;
pub use error::{RestoreError, RestoreErrorDiscriminants};
pub use examine::{Examined, ExaminedImage, Listed, examine, examine_image};
pub use fetch::Fetching;
pub use format::{Compression, Content, Format};
pub use identity::{Identities, IdentityError};
pub use limits::Limits;
pub use options::{Devices, Existing, Labels, Options, Privileges};
pub use outcome::{Loss, Losses, Outcome, Verified};
pub use ownership::{Map, Names, Ownership, OwnershipError};
pub use pack::{PackError, PackOptions, Packed, Sink, Survey, pack, survey};
pub use progress::{Progress, Snapshot};
pub use reading::identify;
pub use restore::{ImageOutcome, image_file, restore, restore_image};
pub use selection::{Selection, SelectionError, Wishes};
pub use source::{Retry, Source, SourceError, SourceErrorKind};
