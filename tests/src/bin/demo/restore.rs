//! The main job: manifests applied, progress, the pod's own words, and no pod by the restore.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use crds::VolumeRestore;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::{Api, api::LogParams};
use tests::{
    cluster::Cluster,
    product,
    s3::S3Server,
    sample::{Compression, SUMS, Sample},
    wait::eventually,
};

use crate::story;

const BUCKET: &str = "my-bucket";
const KEY: &str = "database-backup-20250101.tar.gz";
const CLAIM: &str = "restored-database";

/// Makes the archive that `examples/restore.yaml` names.
pub async fn upload(store: &S3Server) -> Result<Sample> {
    let sample = Sample::collect(20_000, 1 << 30)?;
    println!(
        "{} files with {:.2} GiB",
        sample.files,
        gibibytes(sample.bytes)
    );
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join(KEY);
    sample.pack(&archive, Compression::Gzip)?;
    store.create_bucket(BUCKET).await?;
    store.put_file(BUCKET, KEY, &archive).await?;
    println!(
        "s3://{BUCKET}/{KEY}: {:.2} GiB",
        gibibytes(fs::metadata(&archive)?.len())
    );
    Ok(sample)
}

/// Applies the examples and follows the restore to the pod's own words.
pub async fn run(cluster: &Cluster, store: &S3Server, sample: &Sample) -> Result<()> {
    story::chapter("Applying the manifests");
    let manifest = product::store_manifest("default", BUCKET, store);
    apply(cluster, &manifest).await?;
    let example = fs::read_to_string(product::repository().join("examples/restore.yaml"))?;
    apply(cluster, &example).await?;
    apply(cluster, &checking_pod(sample.checksums())).await?;

    story::chapter("Restoring");
    follow(cluster).await?;

    story::chapter("The pod's own words");
    let words = pod_words(cluster).await?;
    println!("{words}");
    let meant = format!("{0} of {0} checksums match", sample.checksums());
    ensure!(words.contains(&meant), "the pod did not say \"{meant}\"");

    let pods = pods_of_the_restore(cluster)?;
    println!("pods created by the restore: {pods}");
    ensure!(pods == 0, "the restore created {pods} pods");
    Ok(())
}

async fn apply(cluster: &Cluster, manifest: &str) -> Result<()> {
    story::manifest(manifest);
    let arguments = ["apply", "--validate=strict", "-f", "-"];
    println!(
        "{}",
        cluster.kubectl_with_input(&arguments, manifest).await?
    );
    Ok(())
}

/// A pod that uses the PVC: it compares every checksum of the archive, says so, and stays.
fn checking_pod(checksums: usize) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: database
  namespace: default
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: check
      image: busybox:1.35
      command:
        - /bin/sh
        - -c
        - |
          cd /data
          good=$(sha256sum -c {SUMS} 2>/dev/null | grep -c ': OK$')
          echo \"$good of {checksums} checksums match\"
          sleep 1000000000
      volumeMounts:
        - {{name: data, mountPath: /data}}
  volumes:
    - name: data
      persistentVolumeClaim:
        claimName: {CLAIM}
"
    )
}

/// One line a second until the PVC is bound.
async fn follow(cluster: &Cluster) -> Result<()> {
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(cluster.client());
    let restores: Api<VolumeRestore> = Api::default_namespaced(cluster.client());
    let mut second = tokio::time::interval(Duration::from_secs(1));
    for _ in 0..900 {
        second.tick().await;
        let status = restores
            .get_opt(CLAIM)
            .await?
            .and_then(|restore| restore.status);
        let Some(status) = status else {
            println!("  waiting for the populator");
            continue;
        };
        let ready = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == crds::READY);
        match (&status.progress, ready) {
            (Some(progress), _) => println!(
                "  {:?}: {:3} %, {} restored, {}, ETA {}",
                status.phase,
                progress.percent,
                progress.restored,
                progress.rate,
                progress.eta.as_deref().unwrap_or("unknown"),
            ),
            (None, Some(ready)) => println!("  {:?}: {}", status.phase, ready.message),
            (None, None) => println!("  {:?}", status.phase),
        }
        if status.phase == crds::volume_restore::Phase::Failed {
            bail!(
                "the restore failed: {}",
                ready.map_or("no reason given", |ready| &ready.message)
            );
        }
        let claim = claims
            .get(CLAIM)
            .await?
            .status
            .and_then(|status| status.phase);
        if claim.as_deref() == Some("Bound") && status.result.is_some() {
            println!("Bound");
            return Ok(());
        }
    }
    bail!("the PVC was not bound within 15 minutes");
}

async fn pod_words(cluster: &Cluster) -> Result<String> {
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    eventually("the pod's words", Duration::from_secs(300), || async {
        let words = pods.logs("database", &LogParams::default()).await?;
        ensure!(words.contains("checksums match"), "it said {words:?}");
        Ok(words.trim().to_owned())
    })
    .await
}

/// Pods made since the first PVC was, by the API server's audit log, besides the demo's own.
fn pods_of_the_restore(cluster: &Cluster) -> Result<usize> {
    let events = cluster.audit_log().events()?;
    let begin = events
        .iter()
        .position(|event| event.created("persistentvolumeclaims"))
        .context("the audit log does not show the PVC")?;
    let made = events[begin..]
        .iter()
        .filter(|event| event.created("pods") && event.name != "database");
    Ok(made.count())
}

#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
