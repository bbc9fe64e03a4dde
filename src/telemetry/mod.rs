//! Logs, metrics and the endpoints that show them.

mod metrics;

pub use metrics::{METRICS, MetricKind, MetricSpec, Metrics, metrics};
