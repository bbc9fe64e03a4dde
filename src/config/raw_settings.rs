//! `sluice.yaml` as it is spelt. The descriptions are what editors show; see `connectors/schema/settings.json`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::raw_connector::{RawSize, Scalar};

/// Settings of a Sluice process. Each key can be given as SLUICE_<SECTION>__<KEY> in the environment,
/// which goes before the file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSettings {
    pub(super) kafka: RawKafka,
    pub(super) s3: RawS3,
    /// The PostgreSQL database that says what is true.
    pub(super) catalog: RawPostgres,
    /// The PostgreSQL database of facts and dimensions; left out, the catalog's.
    pub(super) warehouse: RawPostgres,
    pub(super) limits: RawLimits,
    pub(super) telemetry: RawTelemetry,
    /// Keys of `hash` steps by name. A key is given as SLUICE_SECRETS__<NAME> in the environment, or lies in a file.
    pub(super) secrets: BTreeMap<String, RawSecret>,
    /// Folder of the connectors; default `connectors`.
    pub(super) connectors_dir: Option<String>,
    /// Folder of the topics; default `topics`.
    pub(super) topics_dir: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawKafka {
    /// Comma-separated host:port.
    pub(super) brokers: Option<String>,
    /// Consumer group; default `sluice`.
    pub(super) group: Option<String>,
    /// Topic of the outbox; default `staged-batches`.
    pub(super) staged_batches_topic: Option<String>,
    /// Passed to librdkafka as they are; what would break the guarantee is refused.
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub(super) properties: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawS3 {
    /// Where raw objects are read.
    pub(super) raw: RawEndpoint,
    /// Where Parquet files are written; what is left out is as in `raw`.
    pub(super) lake: RawEndpoint,
    /// Default `lake`.
    pub(super) lake_bucket: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawEndpoint {
    /// http:// or https:// address; left out, AWS itself.
    pub(super) endpoint: Option<String>,
    /// Default us-east-1.
    pub(super) region: Option<String>,
    pub(super) access_key_id: Option<String>,
    /// Better given in the environment.
    pub(super) secret_access_key: Option<String>,
    /// https://host/bucket/key instead of https://bucket.host/key; default true where an endpoint is given.
    pub(super) path_style: Option<bool>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPostgres {
    /// postgres://user:password@host:port/database or a libpq connection string. Better given in the environment.
    pub(super) dsn: Option<String>,
    /// Connections of the process; default 8.
    #[schemars(range(min = 1))]
    pub(super) pool_size_max: Option<usize>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    /// Memory that everything in flight may hold; default 256MiB.
    pub(super) memory_bytes_max: Option<RawSize>,
    /// A micro-batch is cut at so many rows; default 200000.
    #[schemars(range(min = 1))]
    pub(super) micro_batch_rows_max: Option<u64>,
    /// A micro-batch is cut at so many unpacked bytes; default 64MiB.
    pub(super) micro_batch_bytes_max: Option<RawSize>,
    /// A micro-batch is cut at this age, behind a backlog at ten times as much; default 1s.
    pub(super) micro_batch_age_max: Option<String>,
    /// A micro-batch is cut at so many offsets; default 10000.
    #[schemars(range(min = 1))]
    pub(super) micro_batch_offsets_max: Option<u64>,
    /// Concurrent GETs of the process; default 16.
    #[schemars(range(min = 1))]
    pub(super) objects_in_flight_max: Option<usize>,
    /// A larger object, unpacked, is quarantined; default 16GiB. One of CSV, json_values or Parquet (its rows as JSON text)
    /// must fit in memory_bytes_max besides.
    pub(super) object_bytes_max: Option<RawSize>,
    /// An object of more than 64 MiB that unpacks to more than so many times its stored size is quarantined; default 500.
    #[schemars(range(min = 1))]
    pub(super) unpacked_ratio_max: Option<u64>,
    /// An object that unpacks to more is read and staged in chunks of so many bytes; default 64MiB.
    pub(super) chunk_bytes: Option<RawSize>,
    /// A longer line or record is a dead letter; default 1MiB.
    pub(super) record_bytes_max: Option<RawSize>,
    /// JSON nested deeper is a dead letter; default 64.
    #[schemars(range(min = 1))]
    pub(super) json_depth_max: Option<usize>,
    /// S3 requests a second of the process; left out, no limit.
    #[schemars(range(min = 1))]
    pub(super) s3_requests_per_s: Option<u32>,
    /// How long SIGTERM may drain; default 25s.
    pub(super) drain_deadline: Option<String>,
    /// How long unreachable servers are retried at start; default 60s.
    pub(super) start_deadline: Option<String>,
    /// How often the lake is looked through for files that are listed but not published; default 1h.
    pub(super) sweep_interval: Option<String>,
    /// After so many ownerships that ended with the process, messages are tried alone; one that kills it so often is
    /// set aside; default 3.
    #[schemars(range(min = 1))]
    pub(super) attempts_max: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSecret {
    /// File that holds the key and nothing else; white space at its end does not count.
    pub(super) file: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTelemetry {
    /// Address of /metrics, /healthz and /readyz; default 127.0.0.1:9464; port 0 picks a free one.
    pub(super) listen: Option<String>,
    /// Default text on a terminal, else json.
    pub(super) log_format: Option<RawLogFormat>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawLogFormat {
    Text,
    Json,
}
