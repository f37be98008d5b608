//! Logs, metrics and health, the same for controller and agent.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::cli::{Common, HttpAddress, LogFormat};

/// Where metrics are registered and health is reported. Clones share both.
#[derive(Clone)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Mutex<Registry>,
    ailments: Mutex<BTreeMap<&'static str, String>>,
}

/// Why logs or the HTTP server could not be set up.
#[derive(thiserror::Error, Debug)]
pub enum TelemetryError {
    /// The filter of log lines has a mistake.
    #[error(
        "--log-level {filter:?} cannot be read: {source}; give a level such as info, or TARGET=LEVEL pairs with commas between them"
    )]
    LogLevel {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else has taken the place of our logs.
    #[error("logging was already set up")]
    AlreadySet,
    /// The address is taken or not ours.
    #[error("--http-address {address} cannot be listened on: {source}; choose another, or off")]
    Listen {
        /// The address as given.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                registry: Mutex::new(Registry::with_prefix("populator")),
                ailments: Mutex::default(),
            }),
        }
    }
}

impl Telemetry {
    /// Starts logging to standard error and serving `/healthz` and `/metrics` until `stop`.
    pub async fn start(
        common: &Common,
        http: HttpAddress,
        stop: CancellationToken,
    ) -> Result<Self, TelemetryError> {
        let filter =
            EnvFilter::try_new(&common.log_level).map_err(|source| TelemetryError::LogLevel {
                filter: common.log_level.clone(),
                source,
            })?;
        let logs = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr);
        match common.log_format {
            LogFormat::Text => logs.try_init(),
            LogFormat::Json => logs.json().flatten_event(true).try_init(),
        }
        .map_err(|_| TelemetryError::AlreadySet)?;

        let telemetry = Self::default();
        if let HttpAddress::On(address) = http {
            let listener = tokio::net::TcpListener::bind(address)
                .await
                .map_err(|source| TelemetryError::Listen { address, source })?;
            let router = telemetry.router();
            tokio::spawn(async move {
                let served = axum::serve(listener, router)
                    .with_graceful_shutdown(stop.cancelled_owned())
                    .await;
                if let Err(error) = served {
                    tracing::error!(%error, "serving /healthz and /metrics ended");
                }
            });
        }
        Ok(telemetry)
    }

    /// Registers metrics; their names get the prefix `populator_`.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(
            &mut self
                .shared
                .registry
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Reports that `part` is ill, in a sentence: `/healthz` answers 503 with it until
    /// [`Self::healthy`]. Kubernetes restarts a program that stays ill.
    pub fn ill(&self, part: &'static str, why: impl Into<String>) {
        self.ailments().insert(part, why.into());
    }

    /// Reports that `part` is well (again).
    pub fn healthy(&self, part: &'static str) {
        self.ailments().remove(part);
    }

    fn ailments(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.shared
            .ailments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/healthz", get(healthz))
            .route("/metrics", get(metrics))
            .with_state(self.clone())
    }
}

async fn healthz(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    let ailments = telemetry.ailments();
    if ailments.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let lines: Vec<String> = ailments
        .iter()
        .map(|(part, why)| format!("{part}: {why}"))
        .collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines.join("\n") + "\n")
}

async fn metrics(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    let mut text = String::new();
    let encoded = telemetry
        .register(|registry| prometheus_client::encoding::text::encode(&mut text, registry));
    match encoded {
        Ok(()) => (
            StatusCode::OK,
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        ),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            "the metrics could not be written as text\n".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn health_follows_what_is_reported() {
        let telemetry = Telemetry::default();
        let status = async || {
            healthz(State(telemetry.clone()))
                .await
                .into_response()
                .status()
        };
        assert_eq!(status().await, StatusCode::OK);
        telemetry.ill("lease", "it could not be renewed for 30s");
        assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
        telemetry.healthy("lease");
        assert_eq!(status().await, StatusCode::OK);
    }

    #[test]
    fn metrics_bear_the_prefix() {
        let telemetry = Telemetry::default();
        let count = prometheus_client::metrics::counter::Counter::<u64>::default();
        telemetry.register(|registry| registry.register("tries", "Tries", count.clone()));
        count.inc();
        let mut text = String::new();
        telemetry
            .register(|registry| prometheus_client::encoding::text::encode(&mut text, registry))
            .unwrap();
        assert!(text.contains("populator_tries_total 1"), "{text}");
    }
}
