//! `sluice.yaml` as the program uses it. Every key can be given as `SLUICE_<SECTION>__<KEY>` in the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::kafka_properties;

#[derive(Debug, Clone)]
pub struct Settings {
    pub kafka: KafkaSettings,
    pub s3: S3Settings,
    pub catalog: PostgresSettings,
    pub warehouse: PostgresSettings,
    pub limits: Limits,
    pub telemetry: TelemetrySettings,
    /// Keys of `hash` steps by name: `SLUICE_SECRETS__<NAME>`, or the file `SLUICE_SECRETS__<NAME>__FILE`
    /// (`secrets.<name>.file`); at least 16 bytes each.
    pub secrets: BTreeMap<String, SecretString>,
    /// `SLUICE_CONNECTORS_DIR`, default `connectors`.
    pub connectors_dir: PathBuf,
    /// `SLUICE_TOPICS_DIR`, default `topics`.
    pub topics_dir: PathBuf,
}

#[derive(Clone)]
pub struct KafkaSettings {
    /// `SLUICE_KAFKA__BROKERS`: comma-separated `host:port`.
    pub brokers: String,
    /// `SLUICE_KAFKA__GROUP`, default `sluice`.
    pub group: String,
    /// Topic for the outbox, default `staged-batches`.
    pub staged_batches_topic: String,
    /// `kafka.properties`: passed to librdkafka; what would break the guarantee is refused.
    pub properties: BTreeMap<String, String>,
}

/// Values of properties that hold secrets are left out.
impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, value): (&String, &String)| {
            let value = if kafka_properties::is_secret(name) { "[REDACTED]" } else { value.as_str() };
            (name.clone(), value.to_owned())
        };
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("group", &self.group)
            .field("staged_batches_topic", &self.staged_batches_topic)
            .field("properties", &self.properties.iter().map(shown).collect::<BTreeMap<_, _>>())
            .finish()
    }
}

#[derive(Debug, Clone)]
pub struct S3Settings {
    pub raw: S3Endpoint,
    pub lake: S3Endpoint,
    /// `SLUICE_S3__LAKE_BUCKET`, default `lake`.
    pub lake_bucket: String,
}

/// `SLUICE_S3__RAW__ENDPOINT`, `…__REGION`, `…__ACCESS_KEY_ID`, `…__SECRET_ACCESS_KEY`; likewise `LAKE`.
/// The lake's default to the raw ones.
#[derive(Debug, Clone)]
pub struct S3Endpoint {
    /// `None`: AWS itself.
    pub endpoint: Option<String>,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: SecretString,
    /// `https://host/bucket/key` instead of `https://bucket.host/key`; default true where an endpoint is given.
    pub path_style: bool,
}

/// `SLUICE_CATALOG__DSN`, `SLUICE_WAREHOUSE__DSN`; the warehouse's defaults to the catalog's.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// A libpq connection string or `postgres://` address; holds the password.
    pub dsn: SecretString,
    pub pool_size_max: usize,
}

/// The greatest `limits.record_bytes_max`: text columns have 32-bit offsets, and a batch and one more record must stay
/// below 2 GiB.
pub const RECORD_BYTES_MAX: u64 = 1 << 30;

#[derive(Debug, Clone)]
pub struct Limits {
    /// Memory that everything in flight may hold; default 256 MiB.
    pub memory_bytes_max: u64,
    /// A micro-batch is cut when any of these is reached; defaults 200,000 rows, 64 MiB unpacked, 1 s.
    pub micro_batch_rows_max: u64,
    pub micro_batch_bytes_max: u64,
    pub micro_batch_age_max: Duration,
    /// Offsets in one micro-batch; default 10,000.
    pub micro_batch_offsets_max: u64,
    /// Concurrent GETs of the process; default 16.
    pub objects_in_flight_max: usize,
    /// Unpacked size of an object; default 16 GiB. Of a format that is read whole at most `memory_bytes_max` besides.
    pub object_bytes_max: u64,
    /// Unpacked bytes for each stored one, of an object that unpacks to more than 64 MiB; default 500.
    pub unpacked_ratio_max: u64,
    /// An object that unpacks to more is staged in chunks of so many bytes; default 64 MiB.
    pub chunk_bytes: u64,
    /// One line or direct record; default 1 MiB.
    pub record_bytes_max: u64,
    /// Default 64.
    pub json_depth_max: usize,
    /// S3 requests a second of the process; `None` (default): no limit.
    pub s3_requests_per_s: Option<u32>,
    /// How long SIGTERM may drain; default 25 s (Kubernetes kills after 30).
    pub drain_deadline: Duration,
    /// How long unreachable servers are retried at start; default 60 s.
    pub start_deadline: Duration,
    /// How often the lake is looked through for files that are listed but not published; default 1 h.
    pub sweep_interval: Duration,
    /// Deaths of the process before messages are tried alone, and at one message before it is set aside; default 3.
    pub attempts_max: u32,
}

#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    /// `SLUICE_TELEMETRY__LISTEN`: `/metrics`, `/healthz`, `/readyz`; default `127.0.0.1:9464`; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Default `text` on a terminal, else `json`.
    pub log_format: Option<LogFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
