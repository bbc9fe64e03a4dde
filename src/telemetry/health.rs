//! Whether the process is alive and ready, and the endpoints that tell.
//!
//! | path | 200 | 503 |
//! |---|---|---|
//! | `/healthz` | the process answers | – |
//! | `/readyz` | servers were reached; a group member has had its first assignment, even an empty one | before, and while a dependency is down (asked every 10 seconds), with its name |
//! | `/metrics` | always, Prometheus text format | – |

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use prometheus::{Encoder, TextEncoder};
use tokio::net::TcpListener;

use super::metrics;

/// Labels of `sluice_dependency_up`: the servers that every process needs.
pub const DEPENDENCIES: &[&str] = &["kafka", "s3_raw", "s3_lake", "catalog", "warehouse"];

/// What `/readyz` goes by. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    started: AtomicBool,
    assignment_expected: AtomicBool,
    assigned: AtomicBool,
}

impl Health {
    /// Every server was reached.
    pub fn started(&self) {
        self.state.started.store(true, Ordering::Release);
    }

    /// This process is a member of the group.
    pub fn expect_assignment(&self) {
        self.state.assignment_expected.store(true, Ordering::Release);
    }

    /// The group has answered, with or without topic partitions for this process.
    pub fn assignment_received(&self) {
        self.state.assigned.store(true, Ordering::Release);
    }

    /// Why the process is not ready, or `None`.
    pub fn not_ready(&self) -> Option<String> {
        if !self.state.started.load(Ordering::Acquire) {
            return Some("starting: not every server was reached yet".into());
        }
        let waits = self.state.assignment_expected.load(Ordering::Acquire);
        if waits && !self.state.assigned.load(Ordering::Acquire) {
            return Some("waiting for the consumer group's first assignment".into());
        }
        let is_down = |dependency: &&str| metrics().dependency_up.with_label_values(&[*dependency]).get() == 0;
        let down: Vec<&str> = DEPENDENCIES.iter().copied().filter(is_down).collect();
        (!down.is_empty()).then(|| format!("down: {}", down.join(", ")))
    }
}

/// Serves until the process ends. Returns the address it listens on.
pub async fn serve(listen: SocketAddr, health: Health) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || ready(health.clone())))
        .route("/metrics", get(exposition));
    #[cfg(feature = "faults")]
    let router = router.merge(super::fail_points::endpoint());
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(component = "telemetry", error = %error, "the endpoint ended");
        }
    });
    Ok(address)
}

async fn ready(health: Health) -> (StatusCode, String) {
    match health.not_ready() {
        None => (StatusCode::OK, "ready\n".into()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn exposition() -> ([(header::HeaderName, String); 1], Vec<u8>) {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    if let Err(error) = encoder.encode(&metrics().registry.gather(), &mut text) {
        tracing::error!(component = "telemetry", error = %error, "metrics could not be encoded");
    }
    ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text)
}
