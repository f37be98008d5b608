//! Streams an archive from ranged reads into a directory, confined, bounded and verified. Knows no
//! Kubernetes, no CSI and no object store. A pipeline, each stage in a module:
//!
//! | module | what happens there |
//! |---|---|
//! | [`source`] | where the bytes come from: the trait that a caller implements |
//! | `fetch` | ranges of it in parallel, retried, in order (tasks of a tokio runtime) |
//! | `format`, `decode` | what it is by its first bytes; decompression (a thread) |
//! | `tar_reader`, `entry` | headers of every tar dialect become entries |
//! | `restore` | entries become files beneath a root (the caller's thread), made durable |
//! | `stream` | how bytes pass between the stages |
//! | `budget`, `options` | the memory that all restores share; what a caller chooses |
//! | `progress`, `outcome`, `error` | what a caller sees: on the way, at the end, and why not |

mod budget;
mod decode;
mod entry;
mod error;
mod fetch;
mod format;
mod options;
mod outcome;
mod progress;
mod restore;
pub mod source;
mod stream;
mod tar_reader;

pub use budget::{Budget, WINDOW_MAX};
pub use decode::Verified;
pub use error::RestoreError;
pub use fetch::Fetching;
pub use format::Format;
pub use options::{Devices, Options};
pub use outcome::{Loss, Losses, Outcome};
pub use progress::{Progress, Snapshot};
pub use restore::restore;
pub use source::{Retry, Source, SourceError, SourceErrorKind};
