//! References to VolumeBackups of another namespace, by the controller itself, run beside an API server
//! that lets a `dataSourceRef` name one. No node is there: what it waits for says how far it has come.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::Cluster;
use tests::process::Process;
use tests::product::{self, NAMESPACE};
use tests::wait::eventually;

use crate::request::{Request, backup_store, core, ours, volume_backup};
use crate::{ApiSuite, World, apply_deploy, wait_for_kinds};

pub fn add(suite: &mut ApiSuite) {
    suite.test(
        "a_backup_of_another_namespace_is_read_only_while_it_is_granted",
        crossing,
    );
}

/// A watch of a kind that is not there is begun anew after up to 30 seconds, and half as many by chance.
const WAIT: Duration = Duration::from_secs(90);

/// The namespace of the PVC.
const APP: &str = "app";

/// The namespace of the VolumeBackup.
const BACKUPS: &str = "backups";

/// A cluster whose API server keeps the namespace of a `dataSourceRef`, with `deploy/` on it.
struct Grants {
    cluster: Cluster,
}

async fn crossing(_: &World) -> Result<()> {
    let cluster = Cluster::builder("grants")
        .nodes(0)
        .feature_gates(product::CROSS_NAMESPACE)
        .start()
        .await?;
    apply_deploy(&cluster).await?;
    wait_for_kinds(&cluster).await?;
    let grants = Grants { cluster };
    let tried = grants.tried().await;
    grants.cluster.stop().await?;
    tried
}

impl Grants {
    async fn tried(&self) -> Result<()> {
        for namespace in [APP, BACKUPS] {
            let object = json!({"metadata": {"name": namespace}});
            self.make("/api/v1/namespaces", object).await?;
        }
        // What lies in the PVC's own namespace under the same names must not be taken for it.
        self.store(APP).await?;
        self.make(&ours(APP, "volumebackups"), volume_backup("backup"))
            .await?;
        let keys = json!({
            "metadata": {"name": "store-credentials"},
            "stringData": {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "key"},
        });
        self.make(&core(APP, "secrets"), keys).await?;
        self.make(&core(APP, "persistentvolumeclaims"), claim())
            .await?;

        let controller = self.controller(&[]).await?;
        self.waits_for("CrossNamespaceDisabled").await?;
        controller.kill()?;

        let controller = self.controller(&["--cross-namespace"]).await?;
        self.waits_for("ReferenceGrantsMissing").await?;
        product::install_reference_grants(&self.cluster).await?;
        wait_for_kinds(&self.cluster).await?;
        let denied = self.waits_for("RefNotPermitted").await?;
        ensure!(denied.contains("in namespace backups"), "{denied}");
        self.grant("another").await?;
        self.grant("backup").await?;
        self.waits_for("VolumeBackupNotFound").await?;
        self.make(&ours(BACKUPS, "volumebackups"), volume_backup("backup"))
            .await?;
        let words = self.waits_for("BackupStoreNotFound").await?;
        ensure!(words.contains("in namespace backups"), "{words}");
        self.store(BACKUPS).await?;
        let words = self.waits_for("SecretNotFound").await?;
        ensure!(words.contains("in namespace backups"), "{words}");

        Request::delete(&format!("{}/backup", granting()))
            .send(&self.cluster.client())
            .await?;
        self.waits_for("RefNotPermitted").await?;
        self.grant("backup").await?;
        self.waits_for("SecretNotFound").await?;
        controller.check()?;
        controller.kill()
    }

    async fn make(&self, path: &str, object: Value) -> Result<()> {
        let made = Request::post(path, object)
            .send(&self.cluster.client())
            .await;
        made.map(drop).context(path.to_owned())
    }

    /// A BackupStore that serves the archive's URL.
    async fn store(&self, namespace: &str) -> Result<()> {
        let mut store = backup_store("store");
        store["spec"]["url"] = json!("s3://my-bucket");
        self.make(&ours(namespace, "backupstores"), store).await
    }

    /// Lets the PVCs of the one namespace name this VolumeBackup of the other.
    async fn grant(&self, backup: &str) -> Result<()> {
        let grant = json!({
            "apiVersion": "gateway.networking.k8s.io/v1beta1",
            "kind": "ReferenceGrant",
            "metadata": {"name": backup},
            "spec": {
                "from": [{"group": "", "kind": "PersistentVolumeClaim", "namespace": APP}],
                "to": [{"group": "backup.example.com", "kind": "VolumeBackup", "name": backup}],
            },
        });
        self.make(&granting(), grant).await
    }

    /// Starts the controller with the rights that `deploy/` gives it, and these flags.
    async fn controller(&self, flags: &[&str]) -> Result<Process> {
        let state = self.cluster.state();
        let token = self.cluster.token(NAMESPACE, "controller", None).await?;
        let admin = std::fs::read_to_string(self.cluster.kubeconfig())?;
        let mut config: Value = serde_saphyr::from_str(&admin)?;
        config["users"][0]["user"] = json!({"token": token});
        let folder = state.subfolder("controller")?;
        let path = folder.join("kubeconfig");
        std::fs::write(&path, config.to_string())?;
        let mut command = state.command(&tests::tools::product("populator")?);
        command
            .args(["controller", "--http-address=off", "--identity=one"])
            .arg(format!("--namespace={NAMESPACE}"))
            .args(flags)
            .env("KUBECONFIG", path);
        let log = state.subfolder("logs")?.join("controller.log");
        Process::spawn("controller", &mut command, &log)
    }

    /// Waits until the VolumeRestore gives this reason, and the PVC's events the same words; those.
    async fn waits_for(&self, reason: &str) -> Result<String> {
        let client = self.cluster.client();
        let restore = Request::get(&format!("{}/data", ours(APP, "volumerestores")));
        let events = Request::get(&core(APP, "events"));
        eventually(
            &format!("the PVC waits for {reason}"),
            WAIT,
            async || -> Result<String> {
                let restore = restore.send(&client).await?;
                let ready = &restore["status"]["conditions"][0];
                ensure!(ready["reason"] == reason, "it says {ready}");
                ensure!(
                    restore["spec"]["volumeBackupNamespace"] == BACKUPS,
                    "{}",
                    restore["spec"]
                );
                let events = events.send(&client).await?;
                let items = events["items"].as_array().context("a list")?;
                let told = items.iter().any(|event| {
                    event["reason"] == reason
                        && event["message"] == ready["message"]
                        && event["type"] == "Warning"
                });
                ensure!(told, "no event says {}", ready["message"]);
                Ok(ready["message"].as_str().unwrap_or_default().to_owned())
            },
        )
        .await
    }
}

fn granting() -> String {
    format!("/apis/gateway.networking.k8s.io/v1beta1/namespaces/{BACKUPS}/referencegrants")
}

fn claim() -> Value {
    json!({
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "fast-csi-storage",
            "dataSourceRef": {
                "apiGroup": "backup.example.com", "kind": "VolumeBackup", "name": "backup",
                "namespace": BACKUPS,
            },
        },
    })
}
