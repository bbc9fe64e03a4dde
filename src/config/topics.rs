//! `topics/*.yaml`: what each Kafka topic must look like. `sluice topics plan|apply` compares and creates.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::check_connector::Report;
use super::error::{ConfigError, ConfigErrors};
use super::files::{self, Document};
use super::quantity;
use super::yaml::Step::Key;

/// One topic as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: String,
    pub partitions: i32,
    /// Default 1; a cluster of three brokers wants 3.
    pub replication_factor: i16,
    /// Kafka's own names and values: `retention.ms`, `cleanup.policy`, …
    pub config: BTreeMap<String, String>,
    /// What messages are keyed by, for the reader; `None`: no key.
    pub key: Option<String>,
    pub payload: Payload,
    pub owner: String,
    pub description: String,
}

/// What the messages of a topic are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// Announcements of objects, as object stores write them.
    Notifications,
    /// Each message is one JSON record.
    Records,
    /// Copies of committed micro-batches' manifests, at least once.
    Manifests,
    /// Pointers to dead letters.
    DeadLetters,
}

impl Payload {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notifications => "notifications",
            Self::Records => "records",
            Self::Manifests => "manifests",
            Self::DeadLetters => "dead_letters",
        }
    }
}

/// A Kafka topic.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTopic {
    /// Letters, digits, dots, hyphens and underscores.
    #[schemars(regex(pattern = "^[A-Za-z0-9._-]{1,249}$"))]
    name: String,
    /// Number of partitions; it can be raised later, never lowered.
    #[schemars(range(min = 1))]
    partitions: i32,
    /// Copies of each partition; default 1, in production 3.
    #[schemars(range(min = 1))]
    replication_factor: Option<i16>,
    /// How long messages are kept: `7d`, `12h`, or `forever`.
    retention: Option<String>,
    /// Further settings of the topic, by Kafka's names.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, super::raw_connector::Scalar>")]
    config: BTreeMap<String, serde_json::Value>,
    /// What messages are keyed by, in words.
    key: Option<String>,
    /// What the messages are.
    payload: Payload,
    /// Who answers for it.
    owner: String,
    /// What it is for.
    description: String,
}

/// Reads every topic of a folder. All problems of all files are collected, ordered by place.
pub fn load_topics(folder: &Path) -> Result<Vec<TopicSpec>, ConfigErrors> {
    let mut problems = Vec::new();
    let documents: Vec<Document<RawTopic>> = files::read_folder(folder, &mut problems);
    let mut topics: Vec<TopicSpec> = Vec::new();
    for document in &documents {
        let mut report = Report { file: &document.path, root: &document.root, problems: &mut problems };
        let topic = topic(&document.raw, &mut report);
        if topics.iter().any(|earlier| earlier.name == topic.name) {
            let help = "another file of this folder describes it".to_owned();
            report.add(&[Key("name")], format!("there are two topics `{}`", topic.name), help);
        }
        topics.push(topic);
    }
    if problems.is_empty() {
        return Ok(topics);
    }
    problems.sort_by_key(ConfigError::place);
    Err(ConfigErrors(problems))
}

fn topic(raw: &RawTopic, report: &mut Report<'_>) -> TopicSpec {
    // Source: Apache Kafka 4.3, org.apache.kafka.common.internals.Topic (legal characters, 249 at most).
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if raw.name.is_empty() || raw.name.len() > 249 || !raw.name.chars().all(legal) || raw.name.chars().all(|c| c == '.')
    {
        let help = "1 to 249 letters, digits, dots, hyphens and underscores".to_owned();
        report.add(&[Key("name")], format!("`{}` cannot be a topic's name", raw.name), help);
    }
    let mut config = BTreeMap::new();
    for name in raw.config.keys() {
        config.insert(name.clone(), report.root.find(&[Key("config"), Key(name)]).scalar_text());
    }
    if let Some(retention) = &raw.retention {
        if config.contains_key("retention.ms") {
            let help = "leave one of them out".to_owned();
            report.add_at_key(&[Key("config"), Key("retention.ms")], "`retention` says the same already", help);
        }
        match retention_ms(retention) {
            Ok(milliseconds) => _ = config.insert("retention.ms".to_owned(), milliseconds),
            Err(help) => report.add(&[Key("retention")], format!("`{retention}` is no retention"), help),
        }
    }
    TopicSpec {
        name: raw.name.clone(),
        partitions: raw.partitions,
        replication_factor: raw.replication_factor.unwrap_or(1),
        config,
        key: raw.key.clone(),
        payload: raw.payload,
        owner: raw.owner.clone(),
        description: raw.description.trim().to_owned(),
    }
}

fn retention_ms(text: &str) -> Result<String, String> {
    if text == "forever" {
        return Ok("-1".to_owned());
    }
    quantity::parse_duration(text).map(|duration| duration.as_millis().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_written_for_people_and_kept_for_kafka() {
        let topics = load_topics(&Path::new(env!("CARGO_MANIFEST_DIR")).join("topics")).unwrap();
        let topic = topics.iter().find(|topic| topic.name == "raw-notifications").unwrap();
        assert_eq!((topic.partitions, topic.payload), (8, Payload::Notifications));
        assert_eq!(topic.config["retention.ms"], "7776000000");
        assert_eq!(topic.config["max.message.bytes"], "1048576");
        assert_eq!(retention_ms("forever").as_deref(), Ok("-1"));
        assert!(retention_ms("a while").is_err());
    }
}
