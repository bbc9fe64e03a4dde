//! Logs, metrics and the endpoints that show them.

pub mod fail_points;
pub mod guards;
mod health;
mod logs;
mod metrics;
mod panics;

pub(crate) use fail_points::fail_point;
pub(crate) use guards::{guarded, guarded_sql};
pub use health::{DEPENDENCIES, Health, serve};
pub use logs::{init as init_logs, init_quiet as init_logs_quiet};
pub use metrics::{METRICS, MetricKind, MetricSpec, Metrics, metrics};
pub use panics::caught;
