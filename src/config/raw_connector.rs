//! A connector as its YAML spells it. The descriptions are what editors show; see `connectors/schema/`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::raw_clean::RawCleanStep;
use super::raw_expectation::RawExpectation;
use super::raw_load::RawLoad;

/// One dataset's way from source to warehouse.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConnector {
    /// Name of the connector and of its dataset: `data/<name>/…`; lower-case letters, digits and hyphens.
    #[schemars(regex(pattern = "^[a-z][a-z0-9-]*$"))]
    pub(super) name: String,
    /// Where rows come from.
    pub(super) source: RawSource,
    /// The columns, in the order in which they are written.
    #[schemars(length(min = 1))]
    pub(super) schema: Vec<RawField>,
    /// What to do when the data no longer looks like the schema.
    #[serde(default)]
    pub(super) evolution: RawEvolution,
    /// Steps that mend values, run in this order.
    #[serde(default)]
    pub(super) clean: Vec<RawCleanStep>,
    /// What must be true of every row and of the rows of a micro-batch together, asked in this order at each stage.
    #[serde(default)]
    pub(super) expectations: Vec<RawExpectation>,
    /// SQL that the cleaned rows go through; left out, they go on as they are.
    pub(super) transform: Option<RawTransform>,
    /// Stops the connector where too much of what it reads does not fit; left out, it never does.
    pub(super) breaker: Option<RawBreaker>,
    /// How rows are laid out as Parquet files.
    pub(super) staging: RawStaging,
    /// Which table of the warehouse the rows go to; left out, they stay in the lake.
    pub(super) warehouse: Option<RawWarehouse>,
    /// What of the rows is loaded there, and which aggregates are kept; left out, all of them and none.
    pub(super) load: Option<RawLoad>,
}

/// `dedupe`, expectations after the transform and before the load, `staging` and `warehouse` are about its columns.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTransform {
    /// A query over table `input`, the cleaned rows, that makes at most one row of each: `SELECT … FROM input WHERE …`.
    /// It may join the `tables`.
    /// Or the name of a file beside the connector that holds it: `orders.sql`.
    pub(super) sql: String,
    /// Tables that the SQL joins with the rows, by the names that it has for them.
    #[serde(default)]
    pub(super) tables: BTreeMap<String, RawTable>,
}

/// Exactly one of `file` and `dimension`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTable {
    /// A file beside the connector, or below its folder: CSV with a header, JSON lines or Parquet, by the end of its name
    /// (.csv, .json, .jsonl, .ndjson, .parquet). Its bytes are part of the connector's revision.
    pub(super) file: Option<String>,
    /// A dimension of the warehouse: `products` for `warehouse.dim_products`. Its members as they are when rows are read, but
    /// for those that facts named before they arrived.
    pub(super) dimension: Option<String>,
    /// Columns to take; of a file they may be left out: then all, of types that its values tell.
    #[serde(default)]
    pub(super) columns: Vec<RawTableColumn>,
    /// Of a dimension: read again so often; default 5m.
    pub(super) refresh: Option<String>,
}

/// A column of a table; it may be null.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTableColumn {
    /// Its name in the file or in the warehouse.
    pub(super) name: String,
    /// utf8, int32, int64, float64, boolean, decimal(precision,scale), timestamp_ms, uuid or json.
    #[serde(rename = "type")]
    #[schemars(regex(
        pattern = "^(utf8|int32|int64|float64|boolean|timestamp_ms|uuid|json|decimal\\( *[0-9]+ *, *[0-9]+ *\\))$"
    ))]
    pub(super) data_type: String,
}

/// Objects that notifications announce (`bucket` given), or messages that are records themselves.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSource {
    /// The Kafka topic of the notifications or of the records.
    pub(super) topic: String,
    /// The bucket of the objects; left out, each message is one record.
    pub(super) bucket: Option<String>,
    /// Start of the keys that belong to this connector; left out, the whole bucket. The longest prefix wins.
    pub(super) prefix: Option<String>,
    /// Format of the objects or records. Compression (none, gzip, zstd) is told by content.
    #[serde(default)]
    pub(super) format: RawFormat,
    /// For CSV: how it is spelt.
    pub(super) csv: Option<RawCsv>,
    /// How the store spells keys in its notifications.
    pub(super) key_encoding: Option<RawKeyEncoding>,
    /// What becomes of the rows when an object is written again; default replace.
    pub(super) overwrite: Option<RawOverwrite>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawOverwrite {
    /// The rows of the newest version stand.
    Replace,
    /// The rows of every version stand.
    Append,
    /// The rows of the oldest version stand.
    Reject,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// JSON objects that follow each other, over any number of lines, or are the elements of one array.
    JsonValues,
    /// Comma-separated values, or separated by something else.
    Csv,
    /// Apache Parquet: columns go by name, whatever the order.
    Parquet,
}

/// Left out, each key takes its default.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCsv {
    /// The first record names the columns, in any order; default true. Without, fields stand in the schema's order.
    pub(super) header: Option<bool>,
    /// One ASCII character, "\t" for tabs; default ",".
    pub(super) delimiter: Option<String>,
    /// One ASCII character, doubled inside quotes; default "\"". Empty: nothing is quoted.
    pub(super) quote: Option<String>,
    /// Texts that mean null, in utf8 columns only where they stand without quotes; default `[""]`.
    pub(super) nulls: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawKeyEncoding {
    /// Try the decoded spelling, then the literal one.
    Auto,
    /// Form-urlencoded, as AWS and MinIO do.
    Form,
    /// The key as it is, as versitygw does.
    Literal,
}

/// One column.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawField {
    /// Name of the field and of the column: lower-case letters, digits and underscores.
    #[schemars(regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub(super) name: String,
    /// utf8, int32, int64, float64, boolean, decimal(precision,scale), timestamp_ms, uuid or json.
    #[serde(rename = "type")]
    #[schemars(regex(
        pattern = "^(utf8|int32|int64|float64|boolean|timestamp_ms|uuid|json|decimal\\( *[0-9]+ *, *[0-9]+ *\\))$"
    ))]
    pub(super) data_type: String,
    /// A row without it (or with null) becomes a dead letter.
    #[serde(default)]
    pub(super) required: bool,
    /// For CSV with a header: its name there, such as "User ID"; left out, the column's name.
    pub(super) header: Option<String>,
    /// For JSON and Parquet: where its value stands, as JSONPath of names and indexes, such as `$.user.id`,
    /// `"$.items[0].sku"` or `$.userId`; left out, the field of the column's name.
    pub(super) path: Option<String>,
    /// For timestamp_ms: the spellings to accept; left out, all of them.
    #[schemars(length(min = 1))]
    pub(super) formats: Option<Vec<RawTimestampFormat>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawTimestampFormat {
    /// Text with an offset: 2026-01-31T12:00:00Z.
    Rfc3339,
    /// An integer: milliseconds since 1970.
    EpochMs,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEvolution {
    /// What to do with a field that the schema lacks.
    #[serde(default)]
    pub(super) new_field: RawNewField,
    /// What to do with a value that does not fit its column. In a required column the row becomes a dead letter,
    /// unless the column can be widened.
    #[serde(default)]
    pub(super) type_change: RawTypeChange,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawNewField {
    /// Let it go.
    #[default]
    Ignore,
    /// Keep it in the JSON column `_rescued`.
    Rescue,
    /// The row becomes a dead letter.
    Reject,
    /// Make it a column, of the narrowest type that takes its values.
    Evolve,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawTypeChange {
    /// The row becomes a dead letter.
    #[default]
    Reject,
    /// The column is null.
    Ignore,
    /// The column is null, the value is kept in the JSON column `_rescued`.
    Rescue,
    /// Widen the column: int32, int64, decimal, utf8.
    Evolve,
}

/// A column, or a list of columns.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Names {
    One(String),
    Many(#[schemars(length(min = 1))] Vec<String>),
}

impl Names {
    pub(super) fn list(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

/// A plain value, read as its column's type. Its text is taken from the file, so that no digit is lost.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "for the JSON Schema and for serde; values are taken from the tree")]
pub(super) enum Scalar {
    Text(String),
    Number(f64),
    Boolean(bool),
}

/// `{}` takes both defaults.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBreaker {
    /// The connector is parked when more than this share of its rows are dead letters; default 0.5.
    pub(super) dead_letter_share_max: Option<f64>,
    /// Rows of a topic partition, lately read, below which nothing is concluded; default 1000.
    #[schemars(range(min = 1))]
    pub(super) rows_min: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStaging {
    /// Value of `type=` in the path.
    #[serde(rename = "type")]
    #[schemars(regex(pattern = "^[a-z][a-z0-9_-]*$"))]
    pub(super) type_name: String,
    /// The required timestamp_ms column that decides date and hour, in UTC.
    pub(super) time: String,
    /// Levels of the path behind `type=`: utf8 columns, `date`, `hour`.
    #[schemars(length(min = 1))]
    pub(super) by: Vec<String>,
    /// A number of bytes, or a size such as 128MiB (the default).
    pub(super) file_size_bytes_target: Option<RawSize>,
    /// Columns that the rows of a file are sorted by, ascending, nulls first. Default: as they came.
    #[serde(default)]
    pub(super) sort_by: Vec<String>,
    /// Columns with a bloom filter: readers that look for one value pass over the files that lack it.
    #[serde(default)]
    pub(super) bloom_filter: Vec<String>,
    /// Smallest and greatest value of each page besides those of each file. Default: true.
    pub(super) page_index: Option<bool>,
}

/// A number of bytes, or a text such as `64MiB`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RawSize {
    Bytes(u64),
    Text(String),
}

/// Exactly one of `fact` and `dimension`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWarehouse {
    /// A fact table: `fact_…`.
    pub(super) fact: Option<String>,
    /// A dimension table: `dim_…`.
    pub(super) dimension: Option<String>,
    /// Natural key: the required columns that name a row.
    #[schemars(length(min = 1))]
    pub(super) key: Vec<String>,
    /// A timestamp_ms column: of two rows with one key the greater is the newer. Left out: the object's time.
    pub(super) newer_by: Option<String>,
    /// For facts: dimension → how its member is found.
    #[serde(default)]
    pub(super) dimensions: BTreeMap<String, RawDimensionLink>,
    /// Of a fact: so many hours after the end of its day a partition is sealed: it gets indexes on the dimensions' keys, foreign keys and
    /// statistics. Later rows still load, more slowly. Left out: 6.
    #[schemars(range(max = 8760))]
    pub(super) seal_after_hours: Option<u32>,
    /// Of a fact: index the dimensions' keys from the beginning, for those who ask for the last hours by user or product.
    /// Loading gets slower. Left out: false.
    pub(super) index_hot: Option<bool>,
    /// Of a fact: the event time of a key may change. A newer row of the key then takes the place of the older one, in another partition
    /// where its time says so. Left out: key and event time name a row, and a key with two times has two rows.
    pub(super) time_changes: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDimensionLink {
    /// The column that holds the natural key; null points at the unknown member.
    pub(super) key: Option<String>,
    /// A utf8 column with a name: where there is no natural key, the member that it means is decided once and kept.
    pub(super) resolve: Option<String>,
    /// The dimension's column that holds the names to compare with; left out, `name`.
    pub(super) against: Option<String>,
    /// Utf8 columns that the dimension has too, and of which one value belongs to one member (GTIN, SKU, hash of an
    /// e-mail address): asked before the name, in this order.
    #[serde(default)]
    pub(super) identifiers: Vec<String>,
    /// Names only propose a member, for somebody to accept. Left out: only of users, who may share a name.
    pub(super) propose_only: Option<bool>,
}
