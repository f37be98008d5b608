//! What programs count, as they tell it to Prometheus.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt as _, api::ListParams};

use crate::product::NAMESPACE;

/// What a program answered at `/metrics`.
#[derive(Clone, Debug)]
pub struct Metrics(String);

impl Metrics {
    /// Of each running pod of ours with these labels, through the API server, as whoever may look into our
    /// namespace can have them.
    pub async fn of_pods(client: &Client, labels: &str, port: u16) -> Result<Vec<Self>> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let only = ListParams::default().labels(labels);
        let mut all = Vec::new();
        for pod in pods.list(&only).await? {
            let status = pod.status.as_ref();
            if status.and_then(|status| status.phase.as_deref()) == Some("Running") {
                all.push(Self::of_pod(client, &pod.name_any(), port).await?);
            }
        }
        Ok(all)
    }

    /// Of one pod of ours.
    pub async fn of_pod(client: &Client, pod: &str, port: u16) -> Result<Self> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{port}/proxy/metrics");
        let request = http::Request::get(path).body(Vec::new())?;
        let text = client.request_text(request).await;
        Ok(Self(text.with_context(|| format!("what {pod} counts"))?))
    }

    /// The sum of all figures of this name that have all these labels; none if there is no such figure.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let figures = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (found, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            let has = |(key, value): &(&str, &str)| {
                let label = format!("{key}=\"{value}\"");
                found.split(',').any(|found| found == label)
            };
            labels.iter().all(has).then(|| value.trim().parse().ok())?
        });
        figures.reduce(|sum: f64, figure| sum + figure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_what_has_the_labels() {
        let text = concat!(
            "# HELP calls_seconds How long.\n",
            "calls_seconds_sum{call=\"a\",code=\"Ok\"} 1.5\n",
            "calls_seconds_sum{call=\"a\",code=\"Internal\"} 0.25\n",
            "calls_seconds_sum{call=\"b\",code=\"Ok\"} 4\n",
            "calls_seconds_count{call=\"a\",code=\"Ok\"} 3\n",
            "depth 7\n",
        );
        let metrics = Metrics(text.to_owned());
        let of_a = [("call", "a")];
        assert_eq!(metrics.sum("calls_seconds_sum", &of_a), Some(1.75));
        assert_eq!(metrics.sum("calls_seconds_sum", &[]), Some(5.75));
        assert_eq!(metrics.sum("calls_seconds_sum", &[("call", "c")]), None);
        assert_eq!(metrics.sum("depth", &[]), Some(7.0));
        assert_eq!(metrics.sum("dept", &[]), None);
    }
}
