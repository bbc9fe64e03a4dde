//! Settings from their four places: defaults < file < environment < flags.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::error::{ConfigError, ConfigErrors, Place, did_you_mean, nearest};
use super::raw_connector::RawSize;
use super::raw_settings::{RawEndpoint, RawLimits, RawLogFormat, RawPostgres, RawSettings};
use super::yaml::{self, Node, Origin, Step, Value};
use super::{
    KafkaSettings, Limits, LogFormat, PostgresSettings, RECORD_BYTES_MAX, S3Endpoint, S3Settings, Settings,
    TelemetrySettings, json_schema, kafka_properties, quantity, secrets, shape,
};

/// A setting given on the command line.
#[derive(Debug, Clone)]
pub struct Override {
    /// As the user typed it, for messages: `--brokers`.
    pub flag: String,
    /// Dotted: `kafka.brokers`.
    pub key: String,
    pub value: String,
}

/// A part of the settings that a command cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// `kafka.brokers`
    Kafka,
    /// The keys of `s3.raw`
    Raw,
    /// The keys of `s3.lake`
    Lake,
    /// `catalog.dsn`
    Catalog,
    /// `warehouse.dsn` or `catalog.dsn`
    Warehouse,
}

impl Need {
    pub const ALL: &[Self] = &[Self::Kafka, Self::Raw, Self::Lake, Self::Catalog, Self::Warehouse];
}

/// Names that begin like settings and are none: they belong to commands, scripts and tests.
const OTHER_NAMES: [&str; 9] = [
    "SLUICE_CONFIG",
    "SLUICE_RAW_BUCKET",
    "SLUICE_KAFKA_HOME",
    "SLUICE_PG_BIN",
    "SLUICE_TOOLS_DIR",
    "SLUICE_PROMTOOL",
    "SLUICE_AMTOOL",
    "SLUICE_ER_DATA",
    "SLUICE_LOG",
];
const TEST_PREFIX: &str = "SLUICE_TEST_";
const PREFIX: &str = "SLUICE_";

impl Settings {
    /// Reads and checks the settings. Nothing is required yet: what is given nowhere stays empty until
    /// [`Settings::require`] asks for it, so that a command needs only what it uses.
    /// An empty variable of the environment counts as not given.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        overrides: &[Override],
    ) -> Result<Self, ConfigErrors> {
        let schema = json_schema::of::<RawSettings>();
        // keys of the environment never stand in the tree, which problems are shown from
        let (keys, env): (Vec<_>, Vec<_>) = env.partition(|(name, _)| secrets::is_key(name));
        let path = file.unwrap_or(Path::new("sluice.yaml"));
        let mut problems = Vec::new();
        let mut root = read_file(file)?;
        shape::check(path, &mut root, &schema, &mut problems);
        overlay_environment(&mut root, env.into_iter(), &schema, &mut problems);
        overlay_flags(&mut root, overrides, &schema, &mut problems);
        // Once more for what was laid over; the file's own problems are reported already.
        if problems.is_empty() {
            shape::check(path, &mut root, &schema, &mut problems);
        }
        if !problems.is_empty() {
            return Err(ConfigErrors(problems));
        }
        let raw: RawSettings = serde_json::from_value(root.to_json()).map_err(|error| {
            let place = Place::File { path: path.into(), line: 0, column: 0 };
            ConfigErrors(vec![ConfigError::Invalid { place, message: error.to_string(), help: None }])
        })?;
        let mut reader = Reader { path, root: &root, problems };
        let files = raw.secrets.iter().map(|(name, secret)| (name.clone(), secret.file.clone())).collect();
        let mut settings = reader.settings(raw);
        settings.secrets = secrets::read(keys, files, path, &root, &mut reader.problems);
        if reader.problems.is_empty() {
            return Ok(settings);
        }
        reader.problems.sort_by_key(ConfigError::place);
        Err(ConfigErrors(reader.problems))
    }

    /// That everything a command needs was given; names each missing setting and where to give it.
    pub fn require(&self, needs: &[Need]) -> Result<(), ConfigErrors> {
        use secrecy::ExposeSecret;
        let mut missing = Vec::new();
        let mut ask = |value: &str, key: &'static str, what: &'static str| {
            if value.is_empty() {
                let help =
                    format!("{what}: set {} in the environment or `{key}` in sluice.yaml", environment_name(key));
                let message = format!("`{key}` is not set");
                missing.push(ConfigError::Invalid { place: Place::Nowhere, message, help: Some(help) });
            }
        };
        let (raw, lake) = (&self.s3.raw, &self.s3.lake);
        for need in needs {
            match need {
                Need::Kafka => ask(&self.kafka.brokers, "kafka.brokers", "comma-separated host:port"),
                Need::Raw => {
                    ask(&raw.access_key_id, "s3.raw.access_key_id", "the key id for reading raw objects");
                    let secret = raw.secret_access_key.expose_secret();
                    ask(secret, "s3.raw.secret_access_key", "the secret of that key id");
                }
                // What the lake lacks it takes from `raw`: then one message says it.
                Need::Lake if needs.contains(&Need::Raw) => {}
                Need::Lake => {
                    ask(&lake.access_key_id, "s3.lake.access_key_id", "the key id for writing Parquet files");
                    let secret = lake.secret_access_key.expose_secret();
                    ask(secret, "s3.lake.secret_access_key", "the secret of that key id");
                }
                Need::Catalog => {
                    ask(self.catalog.dsn.expose_secret(), "catalog.dsn", "postgres://user:password@host:port/database");
                }
                Need::Warehouse if needs.contains(&Need::Catalog) => {}
                Need::Warehouse => {
                    let dsn = self.warehouse.dsn.expose_secret();
                    ask(dsn, "warehouse.dsn", "postgres://user:password@host:port/database");
                }
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(ConfigErrors(missing)) }
    }
}

/// `kafka.brokers` → `SLUICE_KAFKA__BROKERS`
fn environment_name(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

fn read_file(file: Option<&Path>) -> Result<Node, ConfigErrors> {
    let Some(path) = file else { return Ok(Node::empty_map(Origin::File { line: 0, column: 0 })) };
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigErrors(vec![ConfigError::Read { path: path.into(), source }]))?;
    yaml::parse(path, &text).map_err(|error| ConfigErrors(vec![error]))
}

fn overlay_environment(
    root: &mut Node,
    env: impl Iterator<Item = (String, String)>,
    schema: &serde_json::Value,
    problems: &mut Vec<ConfigError>,
) {
    let leaves = shape::leaves(schema);
    let properties = environment_name("kafka.properties.").replace("__PROPERTIES__", "__PROPERTIES");
    let mut given: Vec<(String, String)> = env.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    given.sort();
    for (name, value) in given {
        // takes guards away, in test builds alone (telemetry::guards)
        if cfg!(feature = "faults") && name == "SLUICE_WITHOUT_GUARD" {
            continue;
        }
        if OTHER_NAMES.contains(&name.as_str()) || name.starts_with(TEST_PREFIX) || value.is_empty() {
            continue;
        }
        let origin = Origin::Environment(name.clone());
        let property = name.strip_prefix(&properties).and_then(|rest| rest.strip_prefix("__"));
        if let Some(property) = property.filter(|property| !property.is_empty()) {
            // No property of librdkafka has an underscore in its name.
            let property = property.to_lowercase().replace('_', ".");
            root.put(&["kafka", "properties", &property], Node::text(value, origin));
            continue;
        }
        if let Some(secret) = secrets::of_file(&name) {
            root.put(&["secrets", &secret, "file"], Node::text(value, origin));
            continue;
        }
        let maps = ["kafka.properties", "secrets"];
        let known = leaves.iter().find(|leaf| environment_name(leaf) == name && !maps.contains(&leaf.as_str()));
        if let Some(key) = known {
            put(root, key, &value, origin, schema);
            continue;
        }
        let known: Vec<String> =
            leaves.iter().filter(|leaf| !maps.contains(&leaf.as_str())).map(|leaf| environment_name(leaf)).collect();
        let help = match nearest(&name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`__` separates section and key, as in SLUICE_KAFKA__BROKERS".to_owned(),
        };
        let (place, message) = (Place::Environment(name), "there is no such setting".to_owned());
        problems.push(ConfigError::Invalid { place, message, help: Some(help) });
    }
}

fn overlay_flags(root: &mut Node, overrides: &[Override], schema: &serde_json::Value, problems: &mut Vec<ConfigError>) {
    let leaves = shape::leaves(schema);
    for Override { flag, key, value } in overrides {
        if leaves.contains(key) {
            put(root, key, value, Origin::Flag(flag.clone()), schema);
        } else {
            let help = did_you_mean(key, "settings", leaves.iter().map(String::as_str));
            let (place, message) = (Place::Flag(flag.clone()), format!("there is no setting `{key}`"));
            problems.push(ConfigError::Invalid { place, message, help: Some(help) });
        }
    }
}

/// Lays one value over, read as its setting's type: a password of digits stays text.
fn put(root: &mut Node, key: &str, value: &str, origin: Origin, schema: &serde_json::Value) {
    let way: Vec<&str> = key.split('.').collect();
    let text_only = shape::schema_at(schema, &way).is_some_and(|leaf| shape::takes_text_only(schema, leaf));
    let node = if text_only { Node::text(value, origin) } else { yaml::parse_scalar(value, origin) };
    root.put(&way, node);
}

/// Raw → validated, with the places of what was given.
struct Reader<'a> {
    path: &'a Path,
    root: &'a Node,
    problems: Vec<ConfigError>,
}

impl Reader<'_> {
    fn add(&mut self, key: &str, message: String, help: impl Into<Option<String>>) {
        let way: Vec<Step<'_>> = key.split('.').map(Step::Key).collect();
        let place = self.root.find(&way).origin.place(self.path);
        self.problems.push(ConfigError::Invalid { place, message, help: help.into() });
    }

    fn settings(&mut self, raw: RawSettings) -> Settings {
        let group = raw.kafka.group.unwrap_or_else(|| "sluice".to_owned());
        let brokers = self.brokers(raw.kafka.brokers);
        let kafka = KafkaSettings {
            brokers,
            group,
            staged_batches_topic: raw.kafka.staged_batches_topic.unwrap_or_else(|| "staged-batches".to_owned()),
            properties: self.properties(),
        };
        let lake = inherit(raw.s3.lake, &raw.s3.raw);
        let s3 = S3Settings {
            raw: self.endpoint("s3.raw.endpoint", raw.s3.raw),
            lake: self.endpoint("s3.lake.endpoint", lake),
            lake_bucket: raw.s3.lake_bucket.unwrap_or_else(|| "lake".to_owned()),
        };
        let warehouse_dsn = raw.warehouse.dsn.or_else(|| raw.catalog.dsn.clone());
        Settings {
            kafka,
            s3,
            catalog: postgres(raw.catalog),
            warehouse: postgres(RawPostgres { dsn: warehouse_dsn, ..raw.warehouse }),
            limits: self.limits(&raw.limits),
            telemetry: TelemetrySettings {
                listen: self.listen(raw.telemetry.listen.as_deref()),
                log_format: raw.telemetry.log_format.map(|format| match format {
                    RawLogFormat::Text => LogFormat::Text,
                    RawLogFormat::Json => LogFormat::Json,
                }),
            },
            secrets: BTreeMap::new(),
            connectors_dir: raw.connectors_dir.unwrap_or_else(|| "connectors".to_owned()).into(),
            topics_dir: raw.topics_dir.unwrap_or_else(|| "topics".to_owned()).into(),
        }
    }

    fn brokers(&mut self, raw: Option<String>) -> String {
        let brokers = raw.unwrap_or_default();
        let wrong = brokers.split(',').map(str::trim).find(|broker| {
            let port = broker.rsplit_once(':').map(|(host, port)| (host.is_empty(), port.parse::<u16>()));
            !brokers.is_empty() && !matches!(port, Some((false, Ok(_))))
        });
        if let Some(wrong) = wrong {
            let help = "comma-separated host:port, such as kafka-0:9092,kafka-1:9092".to_owned();
            self.add("kafka.brokers", format!("`{wrong}` is no address of a broker"), help);
        }
        brokers
    }

    fn properties(&mut self) -> BTreeMap<String, String> {
        let root = self.root;
        let mut properties = BTreeMap::new();
        let given = root.get("kafka").and_then(|kafka| kafka.get("properties"));
        let Some(Value::Map(entries)) = given.map(|node| &node.value) else { return properties };
        for (key, node) in entries {
            let name = key.scalar_text();
            if let Some(why) = kafka_properties::refused(&name) {
                let place = key.origin.place(self.path);
                let message = format!("`kafka.properties.{name}` may not be set");
                self.problems.push(ConfigError::Invalid { place, message, help: Some(why.to_owned()) });
            }
            properties.insert(name, node.scalar_text());
        }
        properties
    }

    fn endpoint(&mut self, key: &str, raw: RawEndpoint) -> S3Endpoint {
        let way: Vec<Step<'_>> = key.split('.').map(Step::Key).collect();
        // Inherited from `raw`, it is checked there.
        let is_own = self.root.find(&way).as_text() == raw.endpoint.as_deref();
        if let Some(endpoint) = raw.endpoint.as_deref().filter(|_| is_own)
            && !endpoint.starts_with("http://")
            && !endpoint.starts_with("https://")
        {
            let help = format!("write `http://{endpoint}` or `https://{endpoint}`");
            self.add(key, format!("`{key}` lacks http:// or https://"), help);
        }
        S3Endpoint {
            path_style: raw.path_style.unwrap_or(raw.endpoint.is_some()),
            endpoint: raw.endpoint,
            region: raw.region.unwrap_or_else(|| "us-east-1".to_owned()),
            access_key_id: raw.access_key_id.unwrap_or_default(),
            secret_access_key: raw.secret_access_key.unwrap_or_default().into(),
        }
    }

    fn listen(&mut self, raw: Option<&str>) -> SocketAddr {
        let default = SocketAddr::from(([127, 0, 0, 1], 9464));
        raw.map_or(Some(default), |text| text.parse().ok()).unwrap_or_else(|| {
            let help = "an IP address and a port, such as 0.0.0.0:9464".to_owned();
            self.add("telemetry.listen", "`telemetry.listen` is no address".to_owned(), help);
            default
        })
    }

    fn limits(&mut self, raw: &RawLimits) -> Limits {
        const MIB: u64 = 1 << 20;
        let limits = Limits {
            memory_bytes_max: self.size("limits.memory_bytes_max", raw.memory_bytes_max.as_ref(), 256 * MIB),
            micro_batch_rows_max: raw.micro_batch_rows_max.unwrap_or(200_000),
            micro_batch_bytes_max: self.size(
                "limits.micro_batch_bytes_max",
                raw.micro_batch_bytes_max.as_ref(),
                64 * MIB,
            ),
            micro_batch_age_max: self.duration("limits.micro_batch_age_max", raw.micro_batch_age_max.as_deref(), 1),
            micro_batch_offsets_max: raw.micro_batch_offsets_max.unwrap_or(10_000),
            objects_in_flight_max: raw.objects_in_flight_max.unwrap_or(16),
            object_bytes_max: self.size("limits.object_bytes_max", raw.object_bytes_max.as_ref(), 16 << 30),
            unpacked_ratio_max: raw.unpacked_ratio_max.unwrap_or(500).max(1),
            chunk_bytes: self.size("limits.chunk_bytes", raw.chunk_bytes.as_ref(), 64 * MIB),
            record_bytes_max: self.size("limits.record_bytes_max", raw.record_bytes_max.as_ref(), MIB),
            json_depth_max: raw.json_depth_max.unwrap_or(64),
            s3_requests_per_s: raw.s3_requests_per_s,
            drain_deadline: self.duration("limits.drain_deadline", raw.drain_deadline.as_deref(), 25),
            start_deadline: self.duration("limits.start_deadline", raw.start_deadline.as_deref(), 60),
            sweep_interval: self.duration("limits.sweep_interval", raw.sweep_interval.as_deref(), 3600),
            attempts_max: raw.attempts_max.unwrap_or(3).max(1),
        };
        if limits.record_bytes_max > limits.object_bytes_max {
            let help = "an object holds at least one record".to_owned();
            self.add("limits.record_bytes_max", "a record may be larger than an object".to_owned(), help);
        }
        if limits.record_bytes_max > RECORD_BYTES_MAX {
            let help = "at most 1GiB: a batch of text must stay below 2 GiB".to_owned();
            self.add("limits.record_bytes_max", "a record may be larger than a column can hold".to_owned(), help);
        }
        limits
    }

    fn size(&mut self, key: &str, raw: Option<&RawSize>, default: u64) -> u64 {
        let parsed = match raw {
            None => return default,
            Some(RawSize::Bytes(bytes)) => Ok(*bytes),
            Some(RawSize::Text(text)) => quantity::parse_size(text),
        };
        match parsed {
            Ok(0) => self.add(key, format!("`{key}` must be more than nothing"), None),
            Ok(bytes) => return bytes,
            Err(help) => self.add(key, format!("`{key}` is no size"), help),
        }
        default
    }

    fn duration(&mut self, key: &str, raw: Option<&str>, default_s: u64) -> Duration {
        let default = Duration::from_secs(default_s);
        raw.map_or(Ok(default), quantity::parse_duration).unwrap_or_else(|help| {
            self.add(key, format!("`{key}` is no duration"), help);
            default
        })
    }
}

fn inherit(lake: RawEndpoint, raw: &RawEndpoint) -> RawEndpoint {
    RawEndpoint {
        endpoint: lake.endpoint.or_else(|| raw.endpoint.clone()),
        region: lake.region.or_else(|| raw.region.clone()),
        access_key_id: lake.access_key_id.or_else(|| raw.access_key_id.clone()),
        secret_access_key: lake.secret_access_key.or_else(|| raw.secret_access_key.clone()),
        path_style: lake.path_style.or(raw.path_style),
    }
}

fn postgres(raw: RawPostgres) -> PostgresSettings {
    PostgresSettings { dsn: raw.dsn.unwrap_or_default().into(), pool_size_max: raw.pool_size_max.unwrap_or(8) }
}

#[cfg(test)]
#[path = "load_settings_tests.rs"]
mod tests;
