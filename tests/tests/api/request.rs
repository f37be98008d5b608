//! Requests to the API server as plain data, so that the same one can be sent by several people.

use std::fmt;

use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use kube::{Client, Error};
use serde_json::{Value, json};

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    method: Method,
    path: String,
    body: Option<Value>,
    impersonates: Option<&'static str>,
    tries: bool,
}

impl Request {
    fn new(method: Method, path: &str, body: Option<Value>) -> Self {
        Self {
            method,
            path: path.to_owned(),
            body,
            impersonates: None,
            tries: false,
        }
    }

    /// Reads the object or lists the collection at `path`.
    pub fn get(path: &str) -> Self {
        Self::new(Method::GET, path, None)
    }

    /// Creates `object` in the collection at `path`.
    pub fn post(path: &str, object: Value) -> Self {
        Self::new(Method::POST, path, Some(object))
    }

    /// Changes the object at `path` by a merge patch.
    pub fn patch(path: &str, patch: Value) -> Self {
        Self::new(Method::PATCH, path, Some(patch))
    }

    /// Deletes the object at `path`.
    pub fn delete(path: &str) -> Self {
        Self::new(Method::DELETE, path, None)
    }

    /// The same in the name of somebody else.
    pub fn impersonating(mut self, user: &'static str) -> Self {
        self.impersonates = Some(user);
        self
    }

    /// The same as a trial: checked in every respect, and nothing is changed.
    pub fn trial(mut self) -> Self {
        self.tries = true;
        self
    }

    /// Sends it; returns the answer.
    pub async fn send(&self, client: &Client) -> kube::Result<Value> {
        let query = if self.tries && self.method != Method::GET {
            "?dryRun=All"
        } else {
            ""
        };
        let kind = match self.method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let mut request = http::Request::builder()
            .method(&self.method)
            .uri(format!("{}{query}", self.path))
            .header(http::header::CONTENT_TYPE, kind);
        if let Some(user) = self.impersonates {
            request = request.header("Impersonate-User", user);
        }
        let body = self.body.as_ref().map(Value::to_string).unwrap_or_default();
        let request = request.body(body.into_bytes()).map_err(Error::HttpError)?;
        client.request(request).await
    }

    /// That the bearer may send it: it succeeds, as a trial.
    pub async fn is_allowed(&self, bearer: &Client) -> Result<()> {
        let answer = self.clone().trial().send(bearer).await;
        answer
            .map(drop)
            .with_context(|| format!("{self} should be allowed"))
    }

    /// That the bearer may not send it, and that this is all that is wrong with it: it succeeds
    /// as a trial of `admin`'s.
    pub async fn is_forbidden(&self, bearer: &Client, admin: &Client) -> Result<()> {
        let refusal = self.clone().trial().refusal(bearer).await?;
        ensure!(
            refusal.code == 403,
            "{self} was refused with {}: {}",
            refusal.code,
            refusal.text
        );
        self.is_allowed(admin).await.context("the administrator")
    }

    /// How it is refused; an error if it is not.
    pub async fn refusal(&self, bearer: &Client) -> Result<Refusal> {
        match self.send(bearer).await {
            Err(Error::Api(status)) => Ok(Refusal {
                code: status.code,
                text: status.message,
            }),
            Err(error) => Err(error).with_context(|| self.to_string()),
            Ok(answer) => bail!("{self} was not refused: {answer}"),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.method, self.path)?;
        match self.impersonates {
            Some(user) => write!(formatter, " as {user}"),
            None => Ok(()),
        }
    }
}

/// A refused request.
#[derive(Debug)]
pub struct Refusal {
    /// The HTTP status code.
    pub code: u16,
    /// What the API server said.
    pub text: String,
}

impl Refusal {
    /// That it was refused for this reason.
    pub fn says(&self, what: &str) -> Result<()> {
        ensure!(
            self.text.contains(what),
            "{:?} does not say {what:?}",
            self.text
        );
        Ok(())
    }
}

/// The collection of this plural name of ours in a namespace.
pub fn ours(namespace: &str, plural: &str) -> String {
    format!(
        "/apis/{}/{}/namespaces/{namespace}/{plural}",
        crds::GROUP,
        crds::VERSION
    )
}

/// The collection of this plural name of the core group in a namespace.
pub fn core(namespace: &str, plural: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/{plural}")
}

/// A VolumeBackup as a user writes it.
pub fn volume_backup(name: &str) -> Value {
    json!({
        "apiVersion": "backup.example.com/v1",
        "kind": "VolumeBackup",
        "metadata": {"name": name},
        "spec": {
            "backupURL": "s3://my-bucket/database-backup-20250101.tar.gz",
            "restorePoint": "2025-01-01T10:00:00Z",
        },
    })
}

/// A BackupStore as a user writes it.
pub fn backup_store(name: &str) -> Value {
    json!({
        "apiVersion": "backup.example.com/v1",
        "kind": "BackupStore",
        "metadata": {"name": name},
        "spec": {
            "url": "s3://my-bucket/backups",
            "endpoint": "https://s3.example.com:9000",
            "credentialsSecretRef": {"name": "store-credentials"},
        },
    })
}

/// A VolumeRestore as the controller writes it.
pub fn volume_restore(name: &str) -> Value {
    json!({
        "apiVersion": "backup.example.com/v1",
        "kind": "VolumeRestore",
        "metadata": {"name": name},
        "spec": {
            "persistentVolumeClaim": {"name": name, "uid": "0f3e2d1c-1111-2222-3333-444455556666"},
            "volumeBackupName": "database-backup-v1",
        },
    })
}

/// A RestoreOrder for a node, as the controller writes it.
pub fn restore_order(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "backup.example.com/v1",
        "kind": "RestoreOrder",
        "metadata": {"name": name},
        "spec": {
            "goal": "Filled",
            "attempt": 1,
            "nodeName": node,
            "claim": {"namespace": "default", "name": "restored-database", "uid": "0f3e"},
            "volume": {
                "driver": "fastcopy.csi.example.com",
                "name": name,
                "requiredBytes": 1 << 30,
                "accessModes": ["ReadWriteOnce"],
            },
            "archive": {"url": "s3://my-bucket/key", "size": 1 << 20, "humanSize": "1.0 MiB"},
            "access": {
                "url": "https://s3.example.com/my-bucket/key?signature",
                "signed": "2025-01-01T10:00:00Z",
                "expires": "2025-01-01T11:00:00Z",
            },
        },
    })
}
