//! Events, one object for each sentence.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use sha2::{Digest as _, Sha256};

use super::api;
use super::context::ClaimKey;
use crate::failpoint;

/// The component that people see in `kubectl describe`.
const COMPONENT: &str = "populator";

/// Kubernetes refuses longer messages.
const MESSAGE_MAX: usize = 1024;

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether a person should do something.
    pub kind: Kind,
    /// One word in CamelCase.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// How grave a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For information.
    Normal,
    /// A person should do something, or may have to.
    Warning,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// A PVC as the object of events, in the version that was seen.
pub fn about_claim(claim: &ClaimKey, resource_version: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        namespace: Some(claim.namespace.clone()),
        name: Some(claim.name.clone()),
        uid: Some(claim.uid.clone()),
        resource_version,
        field_path: None,
    }
}

/// Publishes a notice. The event's name follows from what it says, so that one sentence about one
/// object is one event, however often it is told and by whichever replica. An event that cannot be
/// written (a namespace on its way out) holds nothing up.
pub async fn publish(client: &Client, about: ObjectReference, notice: &Notice) {
    let namespace = about.namespace.clone().unwrap_or_default();
    let event = build(about, notice, Timestamp::now());
    failpoint::reached("controller.event.before");
    let created = Api::<Event>::namespaced(client.clone(), &namespace)
        .create(&PostParams::default(), &event)
        .await;
    failpoint::reached("controller.event.after");
    match created {
        Ok(_) => {}
        Err(error) if api::already_exists(&error) => {}
        Err(error) if api::meaning(&error) == api::Meaning::NamespaceEnds => {}
        Err(error) => tracing::warn!(
            namespace,
            reason = notice.reason,
            error = api::short(&error),
            "an event could not be written"
        ),
    }
}

fn build(about: ObjectReference, notice: &Notice, now: Timestamp) -> Event {
    let mut digest = Sha256::new();
    for part in [
        about.uid.as_deref().unwrap_or_default(),
        notice.kind.as_str(),
        &notice.reason,
        &notice.message,
    ] {
        digest.update(part);
        digest.update([0]);
    }
    let hash = hex::encode(&digest.finalize()[..8]);
    let name = about.name.as_deref().unwrap_or_default();
    // Names have 253 characters at most; objects' names may be as long as that themselves.
    let name = name.get(..name.len().min(230)).unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{hash}", name.trim_end_matches(['.', '-']))),
            namespace: about.namespace.clone(),
            ..ObjectMeta::default()
        },
        involved_object: about,
        type_: Some(notice.kind.as_str().to_owned()),
        reason: Some(notice.reason.clone()),
        message: Some(shortened(&notice.message)),
        source: Some(EventSource {
            component: Some(COMPONENT.to_owned()),
            host: None,
        }),
        reporting_component: Some(COMPONENT.to_owned()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}

fn shortened(message: &str) -> String {
    if message.len() <= MESSAGE_MAX {
        return message.to_owned();
    }
    let end = (0..=MESSAGE_MAX - '…'.len_utf8())
        .rev()
        .find(|end| message.is_char_boundary(*end))
        .unwrap_or(0);
    format!("{}…", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(message: &str) -> String {
        let about = ObjectReference {
            name: Some("restored-database".to_owned()),
            uid: Some("u1".to_owned()),
            ..ObjectReference::default()
        };
        let notice = Notice {
            kind: Kind::Warning,
            reason: "ObjectNotFound".to_owned(),
            message: message.to_owned(),
        };
        build(about, &notice, Timestamp::UNIX_EPOCH)
            .metadata
            .name
            .unwrap()
    }

    #[test]
    fn one_sentence_is_one_event() {
        assert_eq!(name("a"), name("a"));
        assert_ne!(name("a"), name("b"));
        assert!(name("a").starts_with("restored-database."));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let long = "ä".repeat(600);
        let cut = shortened(&long);
        assert!(cut.len() <= MESSAGE_MAX && cut.ends_with('…'));
        assert_eq!(shortened("short"), "short");
    }
}
