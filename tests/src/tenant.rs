//! One namespace of a cluster with archives of its own: what the suites write, wait for and inspect.

mod claims;
mod pods;
mod restores;
mod snapshots;
mod traces;

use anyhow::Result;
use crds::VolumeBackup;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

pub use self::{
    claims::{Claim, Wish, claim_source},
    pods::Use,
    snapshots::{Snapshot, snapshot_source},
};
use crate::{cluster::Cluster, s3::S3Server};

/// A namespace, and a bucket of the same name.
pub struct Tenant<'a> {
    /// The cluster that it is in.
    pub cluster: &'a Cluster,
    /// Its namespace and its bucket.
    pub name: String,
}

impl<'a> Tenant<'a> {
    /// A namespace with a bucket, and a BackupStore `store` that reads it at `endpoint`.
    pub async fn create(
        cluster: &'a Cluster,
        server: &S3Server,
        endpoint: &str,
        name: &str,
    ) -> Result<Self> {
        let tenant = Self {
            cluster,
            name: name.to_owned(),
        };
        let namespace = json!({"metadata": {"name": name}});
        tenant
            .create_in::<Namespace>(&Api::all(cluster.client()), namespace)
            .await?;
        server.create_bucket(name).await?;
        tenant
            .store(endpoint, (server.access_key(), server.secret_key()))
            .await?;
        Ok(tenant)
    }

    /// The typed API of this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client(), &self.name)
    }

    async fn create_in<K>(&self, api: &Api<K>, object: Value) -> Result<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    {
        let object = serde_json::from_value(object)?;
        Ok(api.create(&PostParams::default(), &object).await?)
    }

    /// Writes the Secret and the BackupStore of the tenant's bucket, or writes them anew.
    pub async fn store(&self, endpoint: &str, keys: (&str, &str)) -> Result<()> {
        self.store_for(&self.name, endpoint, keys).await
    }

    /// [`Tenant::store`] for another bucket.
    pub async fn store_for(&self, bucket: &str, endpoint: &str, keys: (&str, &str)) -> Result<()> {
        self.store_with(bucket, keys, json!({"endpoint": endpoint}))
            .await
    }

    /// [`Tenant::store`] with what else its spec says.
    pub async fn store_with(
        &self,
        bucket: &str,
        keys: (&str, &str),
        mut spec: Value,
    ) -> Result<()> {
        self.credentials(keys).await?;
        spec["url"] = format!("s3://{bucket}").into();
        spec["credentialsSecretRef"] = json!({"name": "store-credentials"});
        self.store_as("store", spec).await
    }

    /// Writes the Secret `store-credentials`, or writes it anew.
    pub async fn credentials(&self, keys: (&str, &str)) -> Result<()> {
        let force = PatchParams::apply("tests").force();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store-credentials"},
            "stringData": {"AWS_ACCESS_KEY_ID": keys.0, "AWS_SECRET_ACCESS_KEY": keys.1},
        });
        self.api::<Secret>()
            .patch("store-credentials", &force, &Patch::Apply(secret))
            .await?;
        Ok(())
    }

    /// A BackupStore of that name and spec, or writes it anew.
    pub async fn store_as(&self, name: &str, spec: Value) -> Result<()> {
        let force = PatchParams::apply("tests").force();
        let store = json!({
            "apiVersion": "backup.example.com/v1", "kind": "BackupStore",
            "metadata": {"name": name}, "spec": spec,
        });
        self.api::<crds::BackupStore>()
            .patch(name, &force, &Patch::Apply(store))
            .await?;
        Ok(())
    }

    /// A VolumeBackup called `name` of the object `key`.
    pub async fn backup(&self, name: &str, key: &str) -> Result<()> {
        self.backup_of(name, &format!("s3://{}/{key}", self.name))
            .await
    }

    /// A VolumeBackup called `name` of the object at `url`.
    pub async fn backup_of(&self, name: &str, url: &str) -> Result<()> {
        self.backup_chosen(name, url, json!({})).await
    }

    /// [`Self::backup`] with what else its spec says.
    pub async fn backup_as(&self, name: &str, key: &str, choices: Value) -> Result<()> {
        let url = format!("s3://{}/{key}", self.name);
        self.backup_chosen(name, &url, choices).await
    }

    async fn backup_chosen(&self, name: &str, url: &str, mut spec: Value) -> Result<()> {
        spec["backupURL"] = url.into();
        if spec["restorePoint"].is_null() {
            spec["restorePoint"] = "2025-01-01T10:00:00Z".into();
        }
        let object = json!({"metadata": {"name": name}, "spec": spec});
        self.create_in::<VolumeBackup>(&self.api(), object)
            .await
            .map(drop)
    }
}
