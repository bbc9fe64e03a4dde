//! `connectors/` → [`Connectors`]: each file by itself, then what they must agree on.

use std::path::Path;
use std::sync::Arc;

use super::check_connector::{self, Report};
use super::check_tables;
use super::error::{ConfigError, ConfigErrors, did_you_mean, nearest};
use super::expression::Expressions;
use super::files::{self, Document};
use super::raw_connector::RawConnector;
use super::topics::{Payload, TopicSpec, load_topics};
use super::yaml::Step::{self, Index, Key};
use super::{Connector, Connectors, Rollup, SourceKind, WarehouseTable};

/// Reads every connector of a folder. All problems of all files are collected, ordered by place.
pub fn load_connectors(folder: &Path) -> Result<Connectors, ConfigErrors> {
    load(folder, None)
}

/// Connectors and topics together: each connector's topic must exist and carry what it reads.
pub fn load_project(connectors: &Path, topics: &Path) -> Result<(Connectors, Vec<TopicSpec>), ConfigErrors> {
    match load_topics(topics) {
        Ok(topics) => Ok((load(connectors, Some(&topics))?, topics)),
        Err(ConfigErrors(mut problems)) => {
            if let Err(ConfigErrors(more)) = load(connectors, None) {
                problems.splice(0..0, more);
            }
            Err(ConfigErrors(problems))
        }
    }
}

fn load(folder: &Path, topics: Option<&[TopicSpec]>) -> Result<Connectors, ConfigErrors> {
    let mut problems = Vec::new();
    let documents: Vec<Document<RawConnector>> = files::read_folder(folder, &mut problems);
    let expressions = Expressions::new();
    let mut checked: Vec<(Connector, &Document<RawConnector>)> = Vec::new();
    for document in &documents {
        let mut report = Report { file: &document.path, root: &document.root, problems: &mut problems };
        let connector = check_connector::connector(&document.raw, &expressions, &mut report);
        if let Some(topics) = topics {
            check_topic(&connector, topics, &mut report);
        }
        checked.push((connector, document));
    }
    for (index, (connector, document)) in checked.iter().enumerate() {
        let mut report = Report { file: &document.path, root: &document.root, problems: &mut problems };
        for (other, other_document) in &checked[..index] {
            check_pair(connector, other, &other_document.path, &mut report);
        }
        check_links(connector, checked.iter().map(|(connector, _)| connector), &mut report);
        check_tables::check_dimensions(connector, checked.iter().map(|(connector, _)| connector), &mut report);
    }
    if problems.is_empty() {
        return Ok(Connectors { all: checked.into_iter().map(|(connector, _)| Arc::new(connector)).collect() });
    }
    problems.sort_by_key(ConfigError::place);
    Err(ConfigErrors(problems))
}

/// What two connectors may not share. Told at the later file.
fn check_pair(connector: &Connector, other: &Connector, other_path: &Path, report: &mut Report<'_>) {
    let elsewhere = other_path.display();
    if connector.name == other.name {
        let help = format!("{elsewhere} has it; names are given once");
        report.add(&[Key("name")], format!("there are two connectors `{}`", connector.name), help);
    }
    check_sources(connector, other, &elsewhere, report);
    let (Some(mine), Some(theirs)) = (&connector.warehouse, &other.warehouse) else { return };
    for (index, rollup) in mine.rollups.iter().enumerate() {
        let is_other = |other: &Rollup| other.name == rollup.name && (other != rollup || mine.target != theirs.target);
        if theirs.rollups.iter().any(is_other) {
            let at = [Key("load"), Key("rollups"), Index(index), Key("name")];
            let help = format!(
                "{elsewhere} has it; a rollup is one table, so those of one name must be the same, of one fact"
            );
            report.add(&at, format!("rollup `{}` is another one elsewhere", rollup.name), help);
        }
    }
    if mine.target != theirs.target {
        return;
    }
    let (WarehouseTable::Fact(table) | WarehouseTable::Dimension(table)) = &mine.target;
    let help = || format!("{elsewhere} fills `{table}` too; the two must agree, or rows of one key have no order");
    if mine.key != theirs.key {
        let message = format!("the key of `{table}` is [{}] elsewhere", theirs.key.join(", "));
        report.add(&[Key("warehouse"), Key("key")], message, help());
    }
    if mine.newer_by != theirs.newer_by {
        let theirs = theirs.newer_by.as_deref().unwrap_or("left out");
        let message = format!("`newer_by` of `{table}` is {theirs} elsewhere");
        report.add(&[Key("warehouse"), Key("newer_by")], message, help());
    }
    if mine.time_changes != theirs.time_changes {
        let message = format!("`time_changes` of `{table}` is {} elsewhere", theirs.time_changes);
        report.add(&[Key("warehouse"), Key("time_changes")], message, help());
    }
    if [&mine.history, &theirs.history].iter().all(|columns| !columns.is_empty()) && mine.history != theirs.history {
        let message = format!("the history of `{table}` is [{}] elsewhere", theirs.history.join(", "));
        let help =
            format!("{elsewhere} keeps it; a dimension has one history: leave it out here, or name the same columns");
        report.add_at_key(&[Key("load"), Key("track_history")], message, help);
    }
    if matches!(mine.target, WarehouseTable::Fact(_)) && connector.staging.time != other.staging.time {
        let message = format!("the event time of `{table}` is `{}` elsewhere", other.staging.time);
        report.add(&[Key("staging"), Key("time")], message, help());
    }
}

fn check_sources(
    connector: &Connector,
    other: &Connector,
    elsewhere: &std::path::Display<'_>,
    report: &mut Report<'_>,
) {
    let topic = &connector.source.topic;
    let at = |key| [Key("source"), Key(key)];
    if *topic != other.source.topic {
        if connector.source.kind.overlaps(&other.source.kind) {
            let help = format!(
                "{elsewhere} takes some of them from `{}`; an object is claimed once by a group: read both from one topic, where the longer prefix wins",
                other.source.topic
            );
            report.add(&at("prefix"), "connectors of two topics want the same objects".to_owned(), help);
        }
        return;
    }
    match (&connector.source.kind, &other.source.kind) {
        (
            SourceKind::Objects { bucket, prefix, .. },
            SourceKind::Objects { bucket: other_bucket, prefix: other_prefix, .. },
        ) => {
            if bucket == other_bucket && prefix == other_prefix {
                let help = format!("{elsewhere} takes them; give one of them a longer prefix, which wins");
                report.add(&at("prefix"), format!("two connectors want the objects of `{bucket}/{prefix}`"), help);
            }
        }
        (SourceKind::Records, SourceKind::Records) => {
            let help = format!("{elsewhere} takes them; a record goes to one connector");
            report.add(&at("topic"), format!("two connectors want the records of topic `{topic}`"), help);
        }
        _ => {
            let help = format!("{elsewhere} reads it the other way; a topic carries one or the other");
            report.add(&at("topic"), format!("topic `{topic}` cannot carry both notifications and records"), help);
        }
    }
}

/// A dimension may be filled by someone else; one that is nearly the name of ours is a slip.
fn check_links<'a>(connector: &Connector, all: impl Iterator<Item = &'a Connector>, report: &mut Report<'_>) {
    let tables: Vec<&str> = all
        .filter_map(|connector| match &connector.warehouse.as_ref()?.target {
            WarehouseTable::Dimension(table) => table.strip_prefix("dim_"),
            WarehouseTable::Fact(_) => None,
        })
        .collect();
    for link in connector.warehouse.iter().flat_map(|warehouse| &warehouse.dimensions) {
        if tables.contains(&link.dimension.as_str()) || nearest(&link.dimension, tables.iter().copied()).is_none() {
            continue;
        }
        let at: [Step<'_>; 3] = [Key("warehouse"), Key("dimensions"), Key(&link.dimension)];
        let help = did_you_mean(&link.dimension, "dimensions", tables.iter().copied());
        report.add_at_key(&at, format!("no connector fills dimension `{}`", link.dimension), help);
    }
}

fn check_topic(connector: &Connector, topics: &[TopicSpec], report: &mut Report<'_>) {
    let at = [Key("source"), Key("topic")];
    let name = &connector.source.topic;
    let wanted = match connector.source.kind {
        SourceKind::Objects { .. } => Payload::Notifications,
        SourceKind::Records => Payload::Records,
    };
    match topics.iter().find(|topic| topic.name == *name) {
        None => {
            let help = did_you_mean(name, "topics", topics.iter().map(|topic| topic.name.as_str()));
            report.add(&at, format!("there is no topic `{name}`"), help);
        }
        Some(topic) if topic.payload != wanted => {
            let help = match wanted {
                Payload::Records => "name the `bucket` of the objects, or read a topic of records".to_owned(),
                _ => "leave `bucket` out where each message is a record, or read a topic of notifications".to_owned(),
            };
            report.add(&at, format!("topic `{name}` carries {}", topic.payload.as_str()), help);
        }
        Some(_) => {}
    }
}

#[cfg(test)]
#[path = "connectors_tests.rs"]
mod tests;
