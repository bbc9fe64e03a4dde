//! Logs, metrics and the endpoints that show them.

mod health;
mod logs;
mod metrics;

pub use health::{DEPENDENCIES, Health, serve};
pub use logs::{init as init_logs, init_quiet as init_logs_quiet};
pub use metrics::{METRICS, MetricKind, MetricSpec, Metrics, metrics};
