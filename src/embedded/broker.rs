//! librdkafka's in-process mock cluster, on a thread of its own (it cannot be sent between threads).
//!
//! # Limits
//! Messages are in memory, and the oldest are evicted beyond 5 MiB a topic partition: good for notifications,
//! not for data. Topics are created through the handle, not by the admin API; transactions mean nothing.
//! Source: librdkafka 2.12, `rdkafka_mock.c`, read 2026-11.

use std::sync::mpsc;
use std::thread::JoinHandle;

use rdkafka::mocking::MockCluster;

use super::EmbeddedError;

/// A running broker; stops when dropped.
pub struct Broker {
    bootstrap_servers: String,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    /// Starts one broker with these topics: name and number of partitions.
    pub async fn start(topics: &[(&str, i32)]) -> Result<Self, EmbeddedError> {
        let topics: Vec<(String, i32)> = topics.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let (ready, started) = tokio::sync::oneshot::channel();
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("embedded-broker".into())
            .spawn(move || {
                let cluster = MockCluster::new(1).and_then(|cluster| {
                    for (name, count) in &topics {
                        cluster.create_topic(name, *count, 1)?;
                    }
                    Ok(cluster)
                });
                match cluster {
                    Ok(cluster) => {
                        // a receiver that is gone means that nobody wants the broker any more
                        if ready.send(Ok(cluster.bootstrap_servers())).is_ok() {
                            let _ = stopped.recv();
                        }
                    }
                    Err(error) => drop(ready.send(Err(EmbeddedError::Broker(error.to_string())))),
                }
            })
            .map_err(|error| EmbeddedError::Broker(error.to_string()))?;
        let bootstrap_servers =
            started.await.map_err(|_| EmbeddedError::Broker("its thread ended".into())).and_then(|ready| ready)?;
        Ok(Self { bootstrap_servers, stop: Some(stop), thread: Some(thread) })
    }

    /// `host:port`
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // a broker that panicked has stopped as well
            let _ = thread.join();
        }
    }
}
