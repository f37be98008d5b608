//! Pods of one busybox container.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::DeleteParams};
use serde_json::{Value, json};

use super::Tenant;
use crate::wait::eventually;

/// A PVC in a pod.
#[derive(Clone, Debug)]
pub enum Use<'a> {
    /// Its file system, mounted at a path.
    Files(&'a str, &'a str),
    /// Its device, at a path.
    Device(&'a str, &'a str),
}

impl Tenant<'_> {
    /// A pod called `name` that mounts the PVC at `/data` and runs `script` in busybox.
    pub async fn pod(&self, name: &str, claim: &str, script: &str) -> Result<()> {
        self.pod_using(name, script, &[Use::Files(claim, "/data")])
            .await
    }

    /// [`Tenant::pod`] that would rather be on `node` than anywhere else.
    pub async fn pod_preferring(
        &self,
        name: &str,
        claim: &str,
        script: &str,
        node: &str,
    ) -> Result<()> {
        let mut object = pod_object(name, script, &[Use::Files(claim, "/data")]);
        object["spec"]["affinity"]["nodeAffinity"] = json!({
            "preferredDuringSchedulingIgnoredDuringExecution": [{
                "weight": 100,
                "preference": {"matchExpressions": [{
                    "key": "kubernetes.io/hostname", "operator": "In", "values": [node],
                }]},
            }],
        });
        self.create_in::<Pod>(&self.api(), object).await.map(drop)
    }

    /// A pod called `name` that has these PVCs and runs `script` in busybox.
    pub async fn pod_using(&self, name: &str, script: &str, uses: &[Use<'_>]) -> Result<()> {
        let object = pod_object(name, script, uses);
        self.create_in::<Pod>(&self.api(), object).await.map(drop)
    }

    /// Waits until the pod runs; returns it.
    pub async fn running(&self, pod: &str, within: Duration) -> Result<Pod> {
        eventually(&format!("pod {pod} runs"), within, || async {
            let pod = self.api::<Pod>().get(pod).await?;
            let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
            ensure!(phase.as_deref() == Some("Running"), "it is {phase:?}");
            Ok(pod)
        })
        .await
    }

    /// Waits until the pod runs; returns where the machine sees the PVC's files.
    pub async fn mounted(&self, pod: &str, claim: &str, within: Duration) -> Result<PathBuf> {
        let pod = self.running(pod, within).await?;
        let uid = pod.uid().context("a pod has a UID")?;
        let node = pod.spec.and_then(|spec| spec.node_name);
        let node = node.context("a running pod has a node")?;
        let volume = self.volume(claim).await?.name_any();
        let kubelet = self.cluster.node_named(&node)?.kubelet_root();
        Ok(kubelet.join(format!(
            "pods/{uid}/volumes/kubernetes.io~csi/{volume}/mount"
        )))
    }

    /// Runs `script` in a running pod and returns what it printed.
    pub async fn exec(&self, pod: &str, script: &str) -> Result<String> {
        let words = ["exec", "-n", &self.name, pod, "--", "/bin/sh", "-c", script];
        self.cluster.kubectl(&words).await
    }

    /// Deletes a pod and waits until it is gone.
    pub async fn delete_pod(&self, pod: &str) -> Result<()> {
        let pods = self.api::<Pod>();
        pods.delete(pod, &DeleteParams::default()).await?;
        eventually(
            &format!("pod {pod} is gone"),
            Duration::from_secs(60),
            || async {
                ensure!(pods.get_opt(pod).await?.is_none(), "it is there");
                Ok(())
            },
        )
        .await
    }
}

fn pod_object(name: &str, script: &str, uses: &[Use<'_>]) -> Value {
    let (mut mounts, mut devices, mut volumes) = (Vec::new(), Vec::new(), Vec::new());
    for each in uses {
        let (Use::Files(claim, path) | Use::Device(claim, path)) = each;
        match each {
            Use::Files(..) => mounts.push(json!({"name": claim, "mountPath": path})),
            Use::Device(..) => devices.push(json!({"name": claim, "devicePath": path})),
        }
        volumes.push(json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}));
    }
    json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "restartPolicy": "Never",
            "containers": [{
                "name": "main", "image": "busybox:1.35", "command": ["/bin/sh", "-c", script],
                "volumeMounts": mounts,
                "volumeDevices": devices,
            }],
            "volumes": volumes,
        },
    })
}
