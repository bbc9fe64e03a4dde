//! A connector as the pipeline uses it: validated, names resolved, revision computed.
//! Reading it from YAML is `config::load`'s business.

use std::borrow::Cow;
use std::sync::Arc;

use super::{CleanStep, Expectation, JoinTable, JsonPath, Rollup};
use crate::types::Overwrite;

/// One dataset's way from source to warehouse.
#[derive(Debug, Clone, PartialEq)]
pub struct Connector {
    pub name: String,
    /// First 16 hex digits of SHA-256 over everything that decides the output; changes with any of it.
    pub revision: String,
    /// Likewise over the schema alone.
    pub schema_revision: String,
    pub source: Source,
    pub fields: Vec<Field>,
    pub evolution: Evolution,
    /// In the order in which they run.
    pub clean: Vec<CleanStep>,
    pub expectations: Vec<Expectation>,
    /// What SQL makes of its cleaned rows; `None`: they go on as they are.
    pub transform: Option<Arc<SqlTransform>>,
    /// `None`: its share of dead letters does not stop it.
    pub breaker: Option<Breaker>,
    pub staging: Staging,
    pub warehouse: Option<Warehouse>,
}

/// SQL between the clean steps and the expectations behind them.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlTransform {
    pub sql: String,
    /// What it joins with the rows, in the order of their names.
    pub tables: Vec<Arc<JoinTable>>,
    /// What is staged and loaded: the connector with the columns of the SQL. Of its clean steps `dedupe` is left, it has
    /// no transform of its own, and the revision of the whole.
    pub dataset: Arc<Connector>,
}

impl Connector {
    /// How its rows are deduped, staged and loaded: what SQL makes of it, or the connector itself.
    pub fn dataset(self: &Arc<Self>) -> &Arc<Self> {
        self.transform.as_ref().map_or(self, |transform| &transform.dataset)
    }

    /// JSON lines below `s3://raw/<name>/`, staged by the day of the column `time`; all else as YAML has it where it says
    /// nothing. Not validated, and without revisions of its own: for tests.
    pub fn of_objects(name: &str, fields: Vec<Field>, time: &str) -> Self {
        let kind = SourceKind::Objects {
            bucket: "raw".to_owned(),
            prefix: format!("{name}/"),
            key_encoding: KeyEncoding::Auto,
            overwrite: Overwrite::Replace,
        };
        Self {
            name: name.to_owned(),
            revision: "r".to_owned(),
            schema_revision: "s".to_owned(),
            source: Source { topic: "raw-notifications".to_owned(), kind, format: Format::Json },
            fields,
            evolution: Evolution::default(),
            clean: Vec::new(),
            expectations: Vec::new(),
            transform: None,
            breaker: None,
            staging: Staging {
                dataset: name.to_owned(),
                type_name: name.to_owned(),
                time: time.to_owned(),
                by: vec![PartitionBy::Date],
                file_size_bytes_target: 128 << 20,
                sort_by: Vec::new(),
                bloom_filter: Vec::new(),
                page_index: true,
            },
            warehouse: None,
        }
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Whether a column's value stands in a field of a record of JSON or Parquet.
    pub fn reads(&self, record_field: &str) -> bool {
        self.fields.iter().any(|field| field.first_name() == record_field)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub topic: String,
    pub kind: SourceKind,
    pub format: Format,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// Objects that notifications announce.
    Objects { bucket: String, prefix: String, key_encoding: KeyEncoding, overwrite: Overwrite },
    /// Each message is one record.
    Records,
}

impl SourceKind {
    /// Whether there are objects that both want.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Objects { bucket, prefix, .. },
                Self::Objects { bucket: other_bucket, prefix: other_prefix, .. },
            ) => bucket == other_bucket && (prefix.starts_with(other_prefix) || other_prefix.starts_with(prefix)),
            _ => false,
        }
    }
}

/// How a store spells object keys in its notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyEncoding {
    /// Try the decoded spelling, on 404 or 412 the literal one.
    #[default]
    Auto,
    /// As AWS and MinIO: form-urlencoded.
    Form,
    /// As versitygw: the key as it is.
    Literal,
}

/// Format of objects and direct records. Compression is told by content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// JSON objects that follow each other, or are the elements of one array. Objects only.
    JsonValues,
    /// Objects only.
    Csv(CsvDialect),
    /// Objects only.
    Parquet,
}

/// How CSV is spelt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvDialect {
    /// The first record names the columns; without, fields stand in the schema's order.
    pub has_header: bool,
    pub delimiter: u8,
    /// `None`: no byte quotes.
    pub quote: Option<u8>,
    /// Texts that mean null.
    pub nulls: Vec<String>,
}

impl Default for CsvDialect {
    fn default() -> Self {
        Self { has_header: true, delimiter: b',', quote: Some(b'"'), nulls: vec![String::new()] }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    pub name: String,
    pub data_type: FieldType,
    pub required: bool,
    /// For `timestamp_ms`: the spellings to accept, tried in this order.
    pub formats: Vec<TimestampFormat>,
    /// Of a CSV header, where it is not the column's name.
    pub header: Option<String>,
    /// Where its value stands in a record of JSON or Parquet, where that is not the field of its name.
    pub path: Option<JsonPath>,
}

impl Field {
    /// The field of a record of JSON or Parquet in which its value stands.
    pub fn first_name(&self) -> &str {
        self.path.as_ref().map_or(&self.name, |path| path.first())
    }

    /// What names its value within a record of JSON or Parquet, for people: a field, or a path.
    pub fn place(&self) -> Cow<'_, str> {
        match &self.path {
            Some(path) if !path.rest().is_empty() => Cow::Owned(path.to_string()),
            _ => Cow::Borrowed(self.first_name()),
        }
    }

    /// The name in a CSV header.
    pub fn header_name(&self) -> &str {
        self.header.as_deref().unwrap_or(&self.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// Arrow Utf8.
    Utf8,
    /// Arrow Int32.
    Int32,
    /// Arrow Int64.
    Int64,
    /// Arrow Float64; NaN and infinities do not exist in JSON.
    Float64,
    /// Arrow Boolean.
    Boolean,
    /// Arrow Decimal128(precision, scale); a value with more digits behind the point is rejected, never rounded.
    Decimal { precision: u8, scale: i8 },
    /// Arrow Timestamp(Millisecond, "UTC").
    TimestampMs,
    /// Arrow Utf8, lower case with hyphens.
    Uuid,
    /// Arrow Utf8: the JSON text as it stood, any JSON value but null.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampFormat {
    /// With an offset; digits beyond milliseconds are cut off.
    Rfc3339,
    /// A JSON integer.
    EpochMs,
}

/// What to do when the data no longer looks like the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evolution {
    pub new_field: NewField,
    pub type_change: TypeChange,
    /// How many of the connector's last fields its data added; 0 as it is declared.
    pub added_count: usize,
}

/// What to do with a field that the schema lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NewField {
    #[default]
    Ignore,
    /// Keep it in the JSON column `_rescued`.
    Rescue,
    Reject,
    /// Make it a column: [`super::evolved`].
    Evolve,
}

/// What to do with a value that does not fit its column. In a required column the row is rejected,
/// unless the column can be widened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TypeChange {
    #[default]
    Reject,
    /// The column is null.
    Ignore,
    /// The column is null, the value is kept in the JSON column `_rescued`.
    Rescue,
    /// Widen the column: [`super::evolved`].
    Evolve,
}

/// When a connector is parked because too much of what it reads does not fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaker {
    /// Of the rows read lately.
    pub dead_letter_share_max: f64,
    /// Fewer rows say nothing.
    pub rows_min: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staging {
    /// `data/<dataset>/…`; the connector's name.
    pub dataset: String,
    /// Value of `type=`.
    pub type_name: String,
    /// The timestamp_ms column (required) that decides date and hour, in UTC.
    pub time: String,
    pub by: Vec<PartitionBy>,
    pub file_size_bytes_target: u64,
    /// Rows of a file are in the order of these columns, ascending and nulls first, then of their lineage.
    pub sort_by: Vec<String>,
    /// Columns with a bloom filter.
    pub bloom_filter: Vec<String>,
    /// Whether pages have statistics, or whole files alone.
    pub page_index: bool,
}

/// A level of the Hive path behind `type=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionBy {
    /// `<column>=<value>` of a utf8 column; null is `__HIVE_DEFAULT_PARTITION__`.
    Column(String),
    /// `date=YYYY-MM-DD`
    Date,
    /// `hour=HH`
    Hour,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warehouse {
    pub target: WarehouseTable,
    /// Natural key: the columns that name a row. For facts the staging time column is part of identity besides.
    pub key: Vec<String>,
    /// A timestamp_ms column: the greater is the newer.
    pub newer_by: Option<String>,
    pub dimensions: Vec<DimensionLink>,
    /// A fact's partition is sealed so many hours after the end of its day.
    pub seal_after_hours: u32,
    /// Whether a fact's partitions have indexes on the dimensions' keys before they are sealed.
    pub index_hot: bool,
    /// Of a fact: the key alone names a row, whatever its event time.
    pub time_changes: bool,
    /// SQL that is true of the rows that are loaded; `None`: all are.
    pub rows: Option<String>,
    /// Aggregates that are kept of a fact.
    pub rollups: Vec<Rollup>,
    /// Columns of a dimension whose earlier values are kept (type 2); sorted.
    pub history: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WarehouseTable {
    /// `warehouse.<name>`
    Fact(String),
    /// `warehouse.<name>`
    Dimension(String),
}

/// That a fact points at a member of `warehouse.dim_<dimension>` by its natural key, or by a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DimensionLink {
    /// `users` for `warehouse.dim_users`; surrogate key column `user_key`, natural key column `user_id`
    /// (the singular of the name, so: without its last `s`).
    pub dimension: String,
    /// The connector's column that holds the natural key; null means the unknown member, key 0, unless a name is
    /// resolved. One of the two is given.
    pub key: Option<String>,
    pub resolve: Option<NameLink>,
}

impl DimensionLink {
    /// The fact's column with the member's key.
    pub fn member_key(&self) -> String {
        member_key(&self.dimension)
    }
}

/// `warehouse.dim_products_history` has the versions of `warehouse.dim_products`.
pub const HISTORY_SUFFIX: &str = "_history";

/// A dimension's surrogate key column: `user_key` of `users`.
pub fn member_key(dimension: &str) -> String {
    format!("{}_key", dimension.strip_suffix('s').unwrap_or(dimension))
}

/// That the member is found by a name where the natural key is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameLink {
    /// The connector's column.
    pub column: String,
    /// The dimension's column.
    pub against: String,
    /// Columns of both: a value that one member has is that member.
    pub identifiers: Vec<String>,
    /// No name is decided automatically.
    pub propose_only: bool,
}

/// Every connector of a project, and which of them wants an object or a record.
#[derive(Debug, Clone, Default)]
pub struct Connectors {
    pub all: Vec<Arc<Connector>>,
}

impl Connectors {
    /// The connector with the longest prefix that matches; prefixes of one bucket and topic are distinct.
    pub fn for_object(&self, topic: &str, bucket: &str, key: &str) -> Option<&Arc<Connector>> {
        self.all
            .iter()
            .filter_map(|connector| match &connector.source.kind {
                SourceKind::Objects { bucket: wanted, prefix, .. }
                    if connector.source.topic == topic && wanted == bucket && key.starts_with(prefix.as_str()) =>
                {
                    Some((prefix.len(), connector))
                }
                _ => None,
            })
            .max_by_key(|(length, _)| *length)
            .map(|(_, connector)| connector)
    }

    /// The connector of a topic of direct records; at most one.
    pub fn for_records(&self, topic: &str) -> Option<&Arc<Connector>> {
        self.all
            .iter()
            .find(|connector| connector.source.topic == topic && connector.source.kind == SourceKind::Records)
    }

    pub fn by_name(&self, name: &str) -> Option<&Arc<Connector>> {
        self.all.iter().find(|connector| connector.name == name)
    }

    /// Topics to subscribe to, sorted, each once.
    pub fn topics(&self) -> Vec<String> {
        let mut topics: Vec<String> = self.all.iter().map(|connector| connector.source.topic.clone()).collect();
        topics.sort();
        topics.dedup();
        topics
    }
}
