//! What a person would look at after a failure.

use std::fmt::Write as _;

use super::Cluster;
use crate::process::tail;

const LOOKS: [&[&str]; 5] = [
    &["get", "pods", "--all-namespaces", "--output=wide"],
    &["get", "pvc,pv,storageclasses", "--all-namespaces"],
    &[
        "get",
        "volumebackups,volumerestores,restoreorders,backupstores",
        "--all-namespaces",
    ],
    &[
        "get",
        "events",
        "--all-namespaces",
        "--sort-by=.lastTimestamp",
    ],
    &["describe", "pods", "--namespace=volume-populator"],
];

/// Pods, claims, events, the logs of our pods and the ends of all components' logs.
pub(super) async fn describe(cluster: &Cluster) -> String {
    let mut text = String::new();
    for arguments in LOOKS {
        look(cluster, arguments, 60, &mut text).await;
    }
    let names = [
        "get",
        "pods",
        "--namespace=volume-populator",
        "--output=name",
    ];
    for pod in cluster.kubectl(&names).await.unwrap_or_default().lines() {
        for previous in ["--previous=false", "--previous=true"] {
            let logs = [
                "logs",
                "--namespace=volume-populator",
                pod,
                "--all-containers",
                "--tail=40",
                previous,
            ];
            look(cluster, &logs, 80, &mut text).await;
        }
    }
    let logs = std::fs::read_dir(cluster.state().folder().join("logs"));
    let mut logs: Vec<_> = logs
        .into_iter()
        .flatten()
        .flatten()
        .map(|log| log.path())
        .collect();
    logs.sort();
    for log in logs {
        let _ = writeln!(text, "--- {}\n{}", log.display(), tail(&log, 15));
    }
    text
}

async fn look(cluster: &Cluster, arguments: &[&str], lines: usize, text: &mut String) {
    let shown = match cluster.kubectl(arguments).await {
        Ok(shown) => shown,
        Err(error) => format!("{error:#}"),
    };
    let all: Vec<&str> = shown.lines().collect();
    let end = all[all.len().saturating_sub(lines)..].join("\n");
    let _ = writeln!(text, "--- kubectl {}\n{end}", arguments.join(" "));
}
