//! What the API server's refusals mean.

use std::time::Duration;

use kube::Error;
use kube::core::Status;

/// What to do about an error of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// What was read was out of date: look again.
    Stale,
    /// The namespace is being deleted, and nothing can be created in it any more.
    NamespaceEnds,
    /// It will not go as it is, and a person should know why.
    Refused(String),
    /// It may go another time.
    Transient,
}

/// How long to wait until the watches have caught up with what made an answer [`Meaning::Stale`].
pub const CATCH_UP: Duration = Duration::from_millis(500);

/// What `error` means.
pub fn meaning(error: &Error) -> Meaning {
    let ends = status(error)
        .and_then(|status| status.details.as_ref())
        .is_some_and(|details| {
            let mut causes = details.causes.iter();
            causes.any(|cause| cause.reason == "NamespaceTerminating")
        });
    match status(error).map(|status| status.code) {
        Some(_) if ends => Meaning::NamespaceEnds,
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn error(status: serde_json::Value) -> Error {
        Error::Api(Box::new(serde_json::from_value(status).unwrap()))
    }

    #[test]
    fn meanings() {
        for (code, means) in [
            (404, Meaning::Stale),
            (409, Meaning::Stale),
            (422, Meaning::Refused("why".to_owned())),
            (403, Meaning::Refused("why".to_owned())),
            (429, Meaning::Transient),
            (500, Meaning::Transient),
        ] {
            assert_eq!(
                meaning(&error(json!({"code": code, "message": "why"}))),
                means,
                "{code}"
            );
        }
        let ends = error(json!({
            "code": 403, "message": "forbidden",
            "details": {"causes": [{"reason": "NamespaceTerminating", "message": "m"}]},
        }));
        assert_eq!(meaning(&ends), Meaning::NamespaceEnds);
        let exists = error(json!({"code": 409, "reason": "AlreadyExists"}));
        assert!(already_exists(&exists) && !not_found(&exists));
        assert!(!already_exists(&error(
            json!({"code": 409, "reason": "Conflict"})
        )));
    }
}
