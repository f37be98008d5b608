//! The API server's audit log: who asked for what, and how that was answered.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// The audit log of a cluster. The API server writes a request to it before answering; a watch is
/// in it when it begins and when it ends.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
}

/// A request that the API server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// The kind of object in the plural, such as `pods`; empty for requests for no object.
    pub resource: String,
    /// Such as `status` or `binding`; empty for the object itself.
    pub subresource: String,
    /// The object's namespace, or empty.
    pub namespace: String,
    /// The object's name, or empty: lists have none, and creations by generateName neither.
    pub name: String,
    /// Who asked, such as `system:serviceaccount:volume-populator:controller`.
    pub user: String,
    /// The program that asked.
    pub user_agent: String,
    /// The status of the answer.
    pub code: u16,
    /// `ResponseComplete`, or `ResponseStarted` for a watch that has begun.
    pub stage: String,
}

/// A place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

impl AuditLog {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file: one JSON document a line.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The end of the log now, for [`AuditLog::since`].
    pub fn mark(&self) -> Result<Mark> {
        let metadata = std::fs::metadata(&self.path).context("the audit log")?;
        Ok(Mark(metadata.len()))
    }

    /// All requests.
    pub fn events(&self) -> Result<Vec<AuditEvent>> {
        self.since(Mark(0))
    }

    /// The requests answered after `mark`.
    pub fn since(&self, mut mark: Mark) -> Result<Vec<AuditEvent>> {
        self.follow(&mut mark)
    }

    /// [`AuditLog::since`], and `mark` comes to stand behind them.
    pub fn follow(&self, mark: &mut Mark) -> Result<Vec<AuditEvent>> {
        let mut file = File::open(&self.path).context("the audit log")?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut events = Vec::new();
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        // A line without an end is being written.
        while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
            events.push(parse(&line)?);
            mark.0 += u64::try_from(line.len())?;
            line.clear();
        }
        Ok(events)
    }
}

impl AuditEvent {
    /// Whether the request ended with success.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Whether an object of this kind was made by it.
    pub fn created(&self, resource: &str) -> bool {
        self.verb == "create"
            && self.resource == resource
            && self.subresource.is_empty()
            && self.succeeded()
    }
}

fn parse(line: &str) -> Result<AuditEvent> {
    let written: Written =
        serde_json::from_str(line).with_context(|| format!("an audit event: {line}"))?;
    let object = written.object_ref.unwrap_or_default();
    Ok(AuditEvent {
        verb: written.verb,
        resource: object.resource,
        subresource: object.subresource,
        namespace: object.namespace,
        name: object.name,
        user: written.user.username,
        user_agent: written.user_agent,
        code: written.response_status.unwrap_or_default().code,
        stage: written.stage,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    stage: String,
    verb: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const CREATE: &str = r#"{"kind":"Event","stage":"ResponseComplete","verb":"create","user":{"username":"admin","groups":[]},"userAgent":"x/1","objectRef":{"resource":"pods","namespace":"default","name":"p","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":201}}"#;
    const HEALTH: &str =
        r#"{"stage":"ResponseComplete","verb":"get","user":{},"responseStatus":{"code":200}}"#;

    #[test]
    fn reads_what_came_after_a_mark_and_leaves_a_half_line() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let log = AuditLog::new(file.path().to_owned());
        writeln!(file, "{HEALTH}").unwrap();
        let mark = log.mark().unwrap();
        write!(file, "{CREATE}\n{{\"stage\":").unwrap();
        let events = log.since(mark).unwrap();
        assert_eq!(events.len(), 1);
        assert!(events[0].created("pods") && !events[0].created("secrets"));
        assert_eq!((&*events[0].namespace, &*events[0].name), ("default", "p"));
        assert_eq!(log.events().unwrap().len(), 2);
    }

    #[test]
    fn who_follows_sees_each_request_once() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let log = AuditLog::new(file.path().to_owned());
        let mut mark = log.mark().unwrap();
        let (begin, end) = CREATE.split_at(40);
        write!(file, "{HEALTH}\n{begin}").unwrap();
        assert_eq!(log.follow(&mut mark).unwrap().len(), 1);
        assert_eq!(log.follow(&mut mark).unwrap(), []);
        writeln!(file, "{end}").unwrap();
        let events = log.follow(&mut mark).unwrap();
        assert!(events.len() == 1 && events[0].created("pods"));
    }

    #[test]
    fn what_was_refused_made_nothing() {
        let refused = parse(&CREATE.replace("201", "403")).unwrap();
        assert!(!refused.created("pods"));
        let binding =
            parse(&CREATE.replace(r#""name":"p""#, r#""subresource":"binding""#)).unwrap();
        assert!(!binding.created("pods"));
    }
}
