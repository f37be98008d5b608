//! What the API server's refusals mean.

use std::time::Duration;

use kube::Error;
use kube::core::Status;

/// What to do about an error of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// What was read was out of date: look again.
    Stale,
    /// It will not go as it is, and a person should know why.
    Refused(String),
    /// It may go another time.
    Transient,
}

/// How long to wait until the watches have caught up with what made an answer [`Meaning::Stale`].
pub const CATCH_UP: Duration = Duration::from_millis(500);

/// What `error` means.
pub fn meaning(error: &Error) -> Meaning {
    match status(error).map(|status| status.code) {
        Some(404 | 409 | 410) => Meaning::Stale,
        Some(400 | 403 | 422) => Meaning::Refused(short(error)),
        Some(_) | None => Meaning::Transient,
    }
}

/// Whether the object exists already.
pub fn already_exists(error: &Error) -> bool {
    status(error).is_some_and(|status| status.reason == "AlreadyExists")
}

/// Whether the object does not exist.
pub fn not_found(error: &Error) -> bool {
    status(error).is_some_and(|status| status.code == 404)
}

/// The error in few words, for messages to people.
pub fn short(error: &Error) -> String {
    match status(error) {
        Some(status) => status.message.clone(),
        None => "the API server did not answer".to_owned(),
    }
}

fn status(error: &Error) -> Option<&Status> {
    match error {
        Error::Api(status) => Some(status),
        _ => None,
    }
}
