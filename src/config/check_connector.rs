//! Raw connector → [`Connector`]: names resolved, types known, every rule that a shape cannot state.

use std::path::Path;
use std::sync::Arc;

use super::check_clean;
use super::check_columns::Columns;
use super::check_expectations;
use super::check_load;
use super::check_query;
use super::check_tables;
use super::error::ConfigError;
use super::expression::Expressions;
use super::quantity;
use super::raw_connector::{
    RawBreaker, RawConnector, RawDimensionLink, RawEvolution, RawKeyEncoding, RawNewField, RawOverwrite, RawSize,
    RawSource, RawStaging, RawTypeChange, RawWarehouse,
};
use super::yaml::Step::{Index, Key};
use super::yaml::{Node, Step};
use super::{
    Breaker, Connector, DimensionLink, Evolution, FieldType, KeyEncoding, NameLink, NewField, PartitionBy, Source,
    SourceKind, SqlTransform, Staging, TypeChange, Warehouse, WarehouseTable, check_format, revision,
};
use crate::types::Overwrite;

const FILE_SIZE_BYTES_TARGET_DEFAULT: u64 = 128 * 1024 * 1024;

/// Where a connector's problems go, with the places of what it says.
pub(super) struct Report<'a> {
    pub(super) file: &'a Path,
    pub(super) root: &'a Node,
    pub(super) problems: &'a mut Vec<ConfigError>,
}

impl Report<'_> {
    pub(super) fn add(&mut self, way: &[Step<'_>], message: impl Into<String>, help: impl Into<Option<String>>) {
        let place = self.root.find(way).origin.place(self.file);
        self.problems.push(ConfigError::Invalid { place, message: message.into(), help: help.into() });
    }

    /// As [`Report::add`], at the key instead of its value.
    pub(super) fn add_at_key(&mut self, way: &[Step<'_>], message: impl Into<String>, help: impl Into<Option<String>>) {
        let place = self.root.find_key(way).origin.place(self.file);
        self.problems.push(ConfigError::Invalid { place, message: message.into(), help: help.into() });
    }
}

/// A name of lower-case letters, digits and one more character, beginning with a letter.
pub(super) fn is_name(name: &str, joint: &[char]) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || joint.contains(&c))
}

/// Adds its problems to the report; what it returns is only good where it added none.
pub(super) fn connector(raw: &RawConnector, expressions: &Expressions, report: &mut Report<'_>) -> Connector {
    if !is_name(&raw.name, &['-']) {
        let help = "lower-case letters, digits and hyphens, beginning with a letter".to_owned();
        report.add(&[Key("name")], format!("`{}` cannot be a connector's name", raw.name), help);
    }
    let columns = Columns::check(&raw.schema, report);
    let mut connector = Connector {
        name: raw.name.clone(),
        revision: String::new(),
        schema_revision: String::new(),
        source: source(&raw.source, report),
        evolution: evolution(&raw.evolution),
        clean: check_clean::clean(&raw.clean, &columns, report),
        expectations: Vec::new(),
        breaker: raw.breaker.as_ref().map(|breaker| self::breaker(breaker, report)),
        transform: None,
        // once it is known which columns it has
        staging: Staging {
            dataset: raw.name.clone(),
            type_name: raw.staging.type_name.clone(),
            time: raw.staging.time.clone(),
            by: Vec::new(),
            file_size_bytes_target: FILE_SIZE_BYTES_TARGET_DEFAULT,
            sort_by: Vec::new(),
            bloom_filter: Vec::new(),
            page_index: true,
        },
        warehouse: None,
        fields: columns.fields.clone(),
    };
    check_clean::window(&connector, report);
    check_format::headers(&connector, raw, report);
    check_format::paths(&connector, raw, report);
    check_format::evolution(&connector, report);
    let (sql, dataset) = match &raw.transform {
        None => (None, None),
        Some(transform) => {
            let sql = check_query::Sql::read(transform, report);
            let tables = check_tables::tables(transform, report);
            let read = sql.zip(tables);
            let dataset =
                read.as_ref().and_then(|(sql, tables)| check_query::dataset(raw, sql, tables, &connector, report));
            // nothing can be told of what is about its columns
            let (Some((sql, tables)), Some(dataset)) = (read, dataset) else { return connector };
            (Some((sql.text, tables)), Some(dataset))
        }
    };
    let made = dataset.as_ref().map(|dataset| Columns::of_fields(&dataset.fields));
    let staged = made.as_ref().unwrap_or(&columns);
    connector.staging = staging(raw, staged, report);
    connector.warehouse =
        raw.warehouse.as_ref().map(|warehouse| self::warehouse(warehouse, &raw.staging, staged, report));
    check_load::load(raw, &mut connector, dataset.as_ref(), staged, expressions, report);
    let stages = check_expectations::Stages {
        decoded: (&connector, &columns),
        transformed: (dataset.as_ref().unwrap_or(&connector), staged),
    };
    connector.expectations = check_expectations::expectations(&raw.expectations, &stages, expressions, report);
    connector.schema_revision = revision::of_schema(&connector);
    let (text, tables) = sql.as_ref().map_or((None, &[][..]), |(sql, tables)| (Some(sql.as_str()), &tables[..]));
    connector.revision = revision::of_connector(&connector, text, tables);
    if let (Some(dataset), Some((sql, tables))) = (dataset, sql) {
        let dataset = Arc::new(check_query::complete(dataset, &connector));
        connector.transform = Some(Arc::new(SqlTransform { sql, tables, dataset }));
    }
    connector
}

fn evolution(raw: &RawEvolution) -> Evolution {
    Evolution {
        new_field: match raw.new_field {
            RawNewField::Ignore => NewField::Ignore,
            RawNewField::Rescue => NewField::Rescue,
            RawNewField::Reject => NewField::Reject,
            RawNewField::Evolve => NewField::Evolve,
        },
        type_change: match raw.type_change {
            RawTypeChange::Reject => TypeChange::Reject,
            RawTypeChange::Ignore => TypeChange::Ignore,
            RawTypeChange::Rescue => TypeChange::Rescue,
            RawTypeChange::Evolve => TypeChange::Evolve,
        },
        added_count: 0,
    }
}

fn source(raw: &RawSource, report: &mut Report<'_>) -> Source {
    let kind = if let Some(bucket) = &raw.bucket {
        SourceKind::Objects {
            bucket: bucket.clone(),
            prefix: raw.prefix.clone().unwrap_or_default(),
            key_encoding: match raw.key_encoding {
                None | Some(RawKeyEncoding::Auto) => KeyEncoding::Auto,
                Some(RawKeyEncoding::Form) => KeyEncoding::Form,
                Some(RawKeyEncoding::Literal) => KeyEncoding::Literal,
            },
            overwrite: match raw.overwrite {
                None | Some(RawOverwrite::Replace) => Overwrite::Replace,
                Some(RawOverwrite::Append) => Overwrite::Append,
                Some(RawOverwrite::Reject) => Overwrite::Reject,
            },
        }
    } else {
        let given = [
            ("prefix", raw.prefix.is_some()),
            ("key_encoding", raw.key_encoding.is_some()),
            ("overwrite", raw.overwrite.is_some()),
        ];
        for (key, _) in given.into_iter().filter(|(_, given)| *given) {
            let help = "name the bucket, or leave it out where each message is a record".to_owned();
            report.add_at_key(&[Key("source"), Key(key)], format!("`{key}` means nothing without `bucket`"), help);
        }
        SourceKind::Records
    };
    for (key, value) in [("topic", Some(&raw.topic)), ("bucket", raw.bucket.as_ref())] {
        if value.is_some_and(String::is_empty) {
            report.add(&[Key("source"), Key(key)], format!("`source.{key}` is empty"), None);
        }
    }
    if raw.prefix.as_deref().is_some_and(|prefix| prefix.starts_with('/')) {
        let help = "keys of S3 do not begin with a slash; leave it off".to_owned();
        report.add(&[Key("source"), Key("prefix")], "`source.prefix` begins with a slash", help);
    }
    let format = check_format::format(raw, report);
    Source { topic: raw.topic.clone(), kind, format }
}

fn breaker(raw: &RawBreaker, report: &mut Report<'_>) -> Breaker {
    let dead_letter_share_max = raw.dead_letter_share_max.unwrap_or(0.5);
    if !(0.0..1.0).contains(&dead_letter_share_max) {
        let at = [Key("breaker"), Key("dead_letter_share_max")];
        let help = "from 0 (the first dead letter stops it) to less than 1; half is 0.5".to_owned();
        report.add(&at, format!("`breaker.dead_letter_share_max` is {dead_letter_share_max}, no share"), help);
    }
    Breaker { dead_letter_share_max, rows_min: raw.rows_min.unwrap_or(1000) }
}

fn staging(connector: &RawConnector, columns: &Columns, report: &mut Report<'_>) -> Staging {
    let raw: &RawStaging = &connector.staging;
    let at = |key| [Key("staging"), Key(key)];
    if !is_name(&raw.type_name, &['-', '_']) {
        let help = "lower-case letters, digits, hyphens and underscores, beginning with a letter".to_owned();
        report.add(&at("type"), format!("`{}` cannot be a type's name", raw.type_name), help);
    }
    if columns.check_one(&raw.time, &at("time"), Some(FieldType::TimestampMs), "`staging.time` is", report) {
        columns.check_required(&raw.time, &at("time"), "it decides the directory of every row", report);
    }
    let mut by = Vec::new();
    for (index, name) in raw.by.iter().enumerate() {
        let at = [Key("staging"), Key("by"), Index(index)];
        let level = match name.as_str() {
            "date" => PartitionBy::Date,
            "hour" => PartitionBy::Hour,
            _ => {
                let levels = ["date", "hour"].into_iter().chain(columns.of_type(FieldType::Utf8));
                columns.check_level(name, levels, &at, report);
                PartitionBy::Column(name.clone())
            }
        };
        if by.contains(&level) {
            report.add(&at, format!("`{name}` stands twice in `staging.by`"), None);
        }
        if level == PartitionBy::Hour && !by.contains(&PartitionBy::Date) {
            let help = "an hour belongs to a day: write `date` before `hour`".to_owned();
            report.add(&at, "`hour` stands without `date` before it", help);
        }
        by.push(level);
    }
    if !raw.by.iter().any(|name| name == "date" || name == "hour") {
        let help = "files are published and kept by day: add `date`".to_owned();
        report.add(&at("by"), "`staging.by` lacks `date`", help);
    }
    Staging {
        dataset: connector.name.clone(),
        type_name: raw.type_name.clone(),
        time: raw.time.clone(),
        by,
        file_size_bytes_target: file_size(raw.file_size_bytes_target.as_ref(), report),
        sort_by: ordered(&raw.sort_by, "sort_by", columns, report),
        bloom_filter: ordered(&raw.bloom_filter, "bloom_filter", columns, report),
        page_index: raw.page_index.unwrap_or(true),
    }
}

/// Columns of `staging.<key>`, each once; of JSON there are many spellings for the same.
fn ordered(names: &[String], key: &'static str, columns: &Columns, report: &mut Report<'_>) -> Vec<String> {
    for (index, name) in names.iter().enumerate() {
        let at = [Key("staging"), Key(key), Index(index)];
        columns.check_fitting(name, &at, |data_type| data_type != FieldType::Json, "values", report);
        if names[..index].contains(name) {
            report.add(&at, format!("`{name}` stands twice in `staging.{key}`"), None);
        }
    }
    names.to_vec()
}

fn file_size(raw: Option<&RawSize>, report: &mut Report<'_>) -> u64 {
    let parsed = match raw {
        None => Ok(FILE_SIZE_BYTES_TARGET_DEFAULT),
        Some(RawSize::Bytes(bytes)) => Ok(*bytes),
        Some(RawSize::Text(text)) => quantity::parse_size(text),
    };
    let at = [Key("staging"), Key("file_size_bytes_target")];
    match parsed {
        Ok(0) => report.add(&at, "`staging.file_size_bytes_target` must be more than nothing", None),
        Ok(bytes) => return bytes,
        Err(help) => report.add(&at, "`staging.file_size_bytes_target` is no size", help),
    }
    FILE_SIZE_BYTES_TARGET_DEFAULT
}

/// Rows that come later than that after the end of their day are checked one by one.
const SEAL_AFTER_HOURS: u32 = 6;

fn warehouse(raw: &RawWarehouse, staging: &RawStaging, columns: &Columns, report: &mut Report<'_>) -> Warehouse {
    let at = |key| [Key("warehouse"), Key(key)];
    let target = match (&raw.fact, &raw.dimension) {
        (Some(name), None) => WarehouseTable::Fact(table("fact", name, report)),
        (None, Some(name)) => WarehouseTable::Dimension(table("dimension", name, report)),
        (fact, _) => {
            let found = if fact.is_some() { "both" } else { "neither" };
            let help = "write `fact: fact_…` or `dimension: dim_…`".to_owned();
            report.add_at_key(
                &[Key("warehouse")],
                format!("`warehouse` names {found} of `fact` and `dimension`"),
                help,
            );
            WarehouseTable::Fact(String::new())
        }
    };
    let key = columns.check_list(&raw.key, &at("key"), None, "", report);
    for (index, name) in raw.key.iter().enumerate() {
        let at = [Key("warehouse"), Key("key"), Index(index)];
        columns.check_required(name, &at, "it names the row", report);
    }
    if let WarehouseTable::Dimension(name) = &target {
        dimension_key(name, &raw.key, report);
    }
    if let Some(newer_by) = &raw.newer_by {
        columns.check_one(newer_by, &at("newer_by"), Some(FieldType::TimestampMs), "`newer_by` is", report);
        let time_changes = raw.time_changes.unwrap_or_default();
        if matches!(target, WarehouseTable::Fact(_)) && *newer_by == staging.time && !time_changes {
            let help = "a fact is named by its key and its event time, so two versions of it never differ there; \
                        name a column that changes with every version, or leave it out: the object's time decides"
                .to_owned();
            report.add(
                &at("newer_by"),
                format!("`{newer_by}` is the event time and cannot tell which row is newer"),
                help,
            );
        }
    }
    if let (WarehouseTable::Dimension(_), false) = (&target, raw.dimensions.is_empty()) {
        report.add_at_key(&at("dimensions"), "a dimension does not point at dimensions", None);
    }
    let mut dimensions = Vec::new();
    for (dimension, link) in &raw.dimensions {
        let at = [Key("warehouse"), Key("dimensions"), Key(dimension)];
        if !is_name(dimension, &['_']) || dimension.starts_with("dim_") {
            let help = "the name of its table without `dim_`: `users` for `dim_users`".to_owned();
            report.add_at_key(&at, format!("`{dimension}` is no dimension's name"), help);
        }
        dimensions.push(dimension_link(dimension, link, columns, report));
    }
    if let WarehouseTable::Dimension(_) = target {
        refuse_facts_options(raw, report);
    }
    Warehouse {
        target,
        key,
        newer_by: raw.newer_by.clone(),
        dimensions,
        seal_after_hours: raw.seal_after_hours.unwrap_or(SEAL_AFTER_HOURS),
        index_hot: raw.index_hot.unwrap_or_default(),
        time_changes: raw.time_changes.unwrap_or_default(),
        // once it is known what it has
        rows: None,
        rollups: Vec::new(),
        history: Vec::new(),
    }
}

/// Of a dimension.
fn refuse_facts_options(raw: &RawWarehouse, report: &mut Report<'_>) {
    let partitions = "is about the partitions of a fact";
    for (name, is_given, why) in [
        ("seal_after_hours", raw.seal_after_hours.is_some(), partitions),
        ("index_hot", raw.index_hot.is_some(), partitions),
        ("time_changes", raw.time_changes.is_some(), "is about the event time of a fact"),
    ] {
        if is_given {
            report.add_at_key(&[Key("warehouse"), Key(name)], format!("`{name}` {why}"), None);
        }
    }
}

fn dimension_link(
    dimension: &str,
    link: &RawDimensionLink,
    columns: &Columns,
    report: &mut Report<'_>,
) -> DimensionLink {
    let at = |key| [Key("warehouse"), Key("dimensions"), Key(dimension), Key(key)];
    if let Some(key) = &link.key {
        columns.check_one(key, &at("key"), Some(FieldType::Utf8), "natural keys of dimensions are", report);
    }
    if let Some(column) = &link.resolve {
        columns.check_one(column, &at("resolve"), Some(FieldType::Utf8), "names are", report);
    }
    if link.key.is_none() && link.resolve.is_none() {
        let help = "write `key: COLUMN` for a natural key, `resolve: COLUMN` for a name, or both".to_owned();
        report.add_at_key(&at("key")[..3], format!("nothing says how `{dimension}` is found"), help);
    }
    for (place, column) in link.identifiers.iter().enumerate() {
        let at = [Key("warehouse"), Key("dimensions"), Key(dimension), Key("identifiers"), Index(place)];
        columns.check_one(column, &at, Some(FieldType::Utf8), "identifiers are", report);
    }
    let of_names = [
        ("against", link.against.is_some()),
        ("identifiers", !link.identifiers.is_empty()),
        ("propose_only", link.propose_only.is_some()),
    ];
    for (key, _) in of_names.into_iter().filter(|(_, given)| *given && link.resolve.is_none()) {
        report.add_at_key(&at(key), format!("`{key}` goes with `resolve`"), None);
    }
    let against = link.against.clone().unwrap_or_else(|| "name".to_owned());
    if !is_name(&against, &['_']) {
        report.add(&at("against"), format!("`{against}` is no column's name"), None);
    }
    let propose_only = link.propose_only.unwrap_or(dimension == "users");
    let identifiers = link.identifiers.clone();
    let resolve = link.resolve.clone().map(|column| NameLink { column, against, identifiers, propose_only });
    DimensionLink { dimension: dimension.to_owned(), key: link.key.clone(), resolve }
}

fn table(kind: &'static str, name: &str, report: &mut Report<'_>) -> String {
    let prefix = if kind == "fact" { "fact_" } else { "dim_" };
    if !name.strip_prefix(prefix).is_some_and(|rest| is_name(rest, &['_'])) {
        let help = format!("a {kind}'s table is called `{prefix}…`: lower-case letters, digits and underscores");
        report.add(&[Key("warehouse"), Key(kind)], format!("`{name}` is no table for a {kind}"), help);
    }
    name.to_owned()
}

/// Facts find a member by the one natural key that its table is named after.
fn dimension_key(table: &str, key: &[String], report: &mut Report<'_>) {
    let plural = table.strip_prefix("dim_").unwrap_or(table);
    let wanted = format!("{}_id", plural.strip_suffix('s').unwrap_or(plural));
    if key.len() != 1 || key[0] != wanted {
        let help = format!("write `key: [{wanted}]`; facts find a member of the table by it");
        report.add(&[Key("warehouse"), Key("key")], format!("the natural key of `{table}` is `{wanted}` alone"), help);
    }
}
