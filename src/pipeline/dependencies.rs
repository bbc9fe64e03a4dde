//! Whether every server still answers: keeps `sluice_dependency_up`, by which `/readyz` goes.
//!
//! Each is asked anew, so that a connection that still stands does not hide a server that takes no new ones. A failure
//! stops nothing: whoever needs the server tries again by itself.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use tokio::sync::watch;

use super::run::RunError;
use super::start::{Buckets, StartError, Started, check_kafka};
use crate::client::postgres;
use crate::config::{Connectors, KafkaSettings, Settings};
use crate::error::chain;
use crate::telemetry::metrics;

/// Between two rounds.
const CHECK_WAIT: Duration = Duration::from_secs(10);
/// A server that needs longer for an answer to next to nothing is of no use.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Dependencies {
    kafka: KafkaSettings,
    topics: Vec<String>,
    catalog: Pool,
    warehouse: Pool,
    buckets: Arc<Buckets>,
}

impl Dependencies {
    pub(super) fn new(settings: &Settings, connectors: &Connectors, started: &Started) -> Self {
        Self {
            kafka: settings.kafka.clone(),
            topics: connectors.topics(),
            catalog: started.catalog.clone(),
            warehouse: started.warehouse.clone(),
            buckets: Arc::new(Buckets::new(settings, connectors)),
        }
    }

    /// Asks again and again until the process stops.
    pub(super) async fn watch(self, mut stopped: watch::Receiver<bool>) -> Result<(), RunError> {
        let rounds = async {
            loop {
                tokio::time::sleep(CHECK_WAIT).await;
                Box::pin(self.check()).await;
            }
        };
        tokio::select! {
            () = rounds => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        Ok(())
    }

    async fn check(&self) {
        let ping = |pool| async move { postgres::ping(pool).await };
        tokio::join!(
            note("kafka", async { check_kafka(self.kafka.clone(), self.topics.clone()).await.map(|_| ()) }),
            note("catalog", async { ping(&self.catalog).await.map_err(StartError::Catalog) }),
            note("warehouse", async { ping(&self.warehouse).await.map_err(StartError::Warehouse) }),
            note("s3_raw", self.buckets.check_raw()),
            note("s3_lake", self.buckets.check_lake()),
        );
    }
}

/// Sets the gauge; logs where the answer differs from the last one.
async fn note(dependency: &'static str, check: impl Future<Output = Result<(), StartError>>) {
    let problem = match tokio::time::timeout(CHECK_TIMEOUT, check).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(chain(&error)),
        Err(_) => Some(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())),
    };
    let gauge = metrics().dependency_up.with_label_values(&[dependency]);
    let was_up = gauge.get() == 1;
    gauge.set(i64::from(problem.is_none()));
    match problem {
        Some(error) if was_up => tracing::warn!(component = "run", dependency, error, "a dependency is down"),
        None if !was_up => tracing::info!(component = "run", dependency, "a dependency is up again"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::kafka::KafkaError;
    use crate::telemetry::{DEPENDENCIES, Health};

    #[tokio::test]
    async fn a_process_is_ready_while_every_dependency_answers() {
        let health = Health::default();
        assert!(health.not_ready().is_some_and(|why| why.starts_with("starting")));
        health.started();
        for dependency in DEPENDENCIES {
            note(dependency, async { Ok(()) }).await;
        }
        assert_eq!(health.not_ready(), None);
        let missing = || Err(StartError::Kafka(KafkaError::TopicMissing { topic: "t".to_owned() }));
        note("warehouse", async { missing() }).await;
        assert_eq!(health.not_ready().as_deref(), Some("down: warehouse"));
        note("kafka", async { missing() }).await;
        assert_eq!(health.not_ready().as_deref(), Some("down: kafka, warehouse"));
        for dependency in ["kafka", "warehouse"] {
            note(dependency, async { Ok(()) }).await;
        }
        assert_eq!(health.not_ready(), None);
    }
}
