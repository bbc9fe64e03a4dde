//! An S3 server on loopback over a folder, which announces new objects to Kafka.
//!
//! # Contract
//! An object `x/y` of bucket `b` is the file `<root>/b/x/y`, so that any tool can read what was stored. A PUT is
//! answered when the object is complete under its name and its announcement is acknowledged: nothing is lost.
//! # Limits
//! Path-style addresses; one key; no versions, no multipart. Keys that are no safe file names are refused.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::error_handling::HandleError;
use axum::http::StatusCode;
use rdkafka::ClientConfig;
use rdkafka::producer::FutureProducer;
use s3s::HttpError;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::EmbeddedError;
use super::store_backend::{Announcer, Backend};
use super::store_files::StoreFiles;

pub struct StoreOptions {
    pub root: PathBuf,
    pub access_key_id: String,
    pub secret_access_key: String,
    /// Created where they are missing.
    pub buckets: Vec<String>,
    pub notify: Option<Notify>,
}

/// Where new objects of one bucket are announced.
pub struct Notify {
    pub bootstrap_servers: String,
    pub topic: String,
    pub bucket: String,
}

/// A running store.
pub struct Store {
    endpoint: String,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Store {
    pub async fn start(options: StoreOptions) -> Result<Self, EmbeddedError> {
        let StoreOptions { root, access_key_id, secret_access_key, buckets, notify } = options;
        let files = tokio::task::spawn_blocking({
            let root = root.clone();
            move || StoreFiles::open(&root, &buckets)
        })
        .await?
        .map_err(|source| EmbeddedError::Folder { path: root, source })?;
        let announcer = notify
            .map(|notify| -> Result<Announcer, rdkafka::error::KafkaError> {
                let mut config = ClientConfig::new();
                config.set("bootstrap.servers", &notify.bootstrap_servers).set("linger.ms", "0");
                let producer: FutureProducer = config.create()?;
                Ok(Announcer::new(producer, notify.topic, notify.bucket))
            })
            .transpose()
            .map_err(|error| EmbeddedError::Broker(error.to_string()))?;
        let mut builder = S3ServiceBuilder::new(Backend { files: Arc::new(files), announcer });
        builder.set_auth(SimpleAuth::from_single(access_key_id, secret_access_key));
        let service = HandleError::new(builder.build(), |_: HttpError| async { StatusCode::INTERNAL_SERVER_ERROR });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(EmbeddedError::Listen)?;
        let endpoint = format!("http://{}", listener.local_addr().map_err(EmbeddedError::Listen)?);
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move {
            let router: Router = Router::new().fallback_service(service);
            let serving = axum::serve(listener, router).with_graceful_shutdown(async {
                // a sender that is gone stops the server as well
                let _ = stopped.await;
            });
            if let Err(error) = serving.await {
                tracing::error!(component = "embedded", error = %error, "the embedded store ended");
            }
        });
        Ok(Self { endpoint, stop, server })
    }

    /// `http://127.0.0.1:port`
    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// Finishes open requests; connections that stay idle are cut after a moment.
    pub async fn stop(self) {
        drop(self.stop);
        let aborter = self.server.abort_handle();
        if tokio::time::timeout(std::time::Duration::from_secs(2), self.server).await.is_err() {
            aborter.abort();
        }
    }
}
