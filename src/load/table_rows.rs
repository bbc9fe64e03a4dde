//! Rows of a fact in the form of its table: ranked by key, their members resolved, encoded one after the other.
//!
//! # Contract
//! Of rows with one key the newest is a winner, by the order that SQL uses as well (LOAD-2); the others lose. Winners are
//! sorted by day and key, so that each day's are neighbours and meet an index in its order. Equality of keys is
//! PostgreSQL's, which limits what columns a key may have here ([`RankedRows::suits`]); other facts are ranked by SQL.
//! A row of a member that is not there yet has a gap for its key, filled within the transaction that makes the member.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use ahash::RandomState;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{
    DataType, Field, Int32Type, Int64Type, Schema, TimestampMicrosecondType, TimestampMillisecondType,
};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, NaiveDate, Utc};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::error::LoadError;
use super::plan::{LINEAGE_COLUMNS, Link, TableKind, TablePlan, WireType};
use super::rows::{CHUNK_BYTES, encoder, jsonb_columns};

const DAY_MILLIS: i64 = 86_400_000;
/// Head of a binary COPY stream: signature, no flags, no extension. Source: PostgreSQL 15 documentation, COPY.
const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Its end: a tuple of −1 fields.
const END: &[u8] = b"\xff\xff";

/// Rows whose members have no keys yet.
pub(super) struct RankedRows {
    /// Columns of the plan, then the lineage.
    rows: RecordBatch,
    /// Winners by day and key, then losers.
    order: Vec<u32>,
    winner_count: usize,
    /// Of the winners.
    days: Vec<(NaiveDate, Range<usize>)>,
    /// For each link.
    names: Vec<Names>,
}

/// The natural keys that a link's column names.
pub(super) struct Names {
    /// Each once; nobody's name is not among them.
    pub distinct: Vec<String>,
    /// For each row its place in `distinct`; `None`: the row names nobody.
    of_rows: Vec<Option<u32>>,
}

/// Rows in the form of the table.
pub(super) struct TableRows {
    /// Names of the columns, in the order of the fields.
    pub columns: Vec<String>,
    /// Tuples of binary COPY without head and end: winners by day and key, then losers.
    tuples: Bytes,
    /// Where each begins, and the end.
    starts: Vec<usize>,
    pub winner_count: usize,
    /// Winners of each day.
    pub days: Vec<(NaiveDate, Range<usize>)>,
    /// Of a fact with rollups: its time and the columns that they group by, in the order of the tuples.
    pub grouped: RecordBatch,
    /// What names the winners: a column each.
    identity: Vec<KeyColumn>,
    gaps: Vec<Gap>,
    /// For each link, the column with its member's key.
    member_keys: Vec<String>,
    /// For each link, the names of `gaps`.
    pub unresolved: Vec<BTreeSet<String>>,
}

/// Eight bytes of a tuple where the key of a member belongs.
struct Gap {
    at: usize,
    /// Which tuple.
    place: usize,
    link: usize,
    name: String,
}

enum KeyColumn {
    Uuid(Vec<Uuid>),
    Text(Vec<String>),
    Int4(Vec<i32>),
    Int8(Vec<i64>),
    Time(Vec<DateTime<Utc>>),
}

impl RankedRows {
    /// Whether equal bytes mean equal keys for PostgreSQL too, members are named by keys alone, and a row of a key is to be found in the
    /// partition of its time.
    pub(super) fn suits(plan: &TablePlan) -> bool {
        let is_plain = |name: &str| {
            let wire = plan.column(name).map(|column| column.wire);
            let plain = [WireType::KeyText, WireType::Uuid, WireType::Int4, WireType::Int8, WireType::Timestamptz];
            wire.is_some_and(|wire| plain.contains(&wire))
        };
        plan.is_fact()
            && !plan.time_changes
            && plan.identity().into_iter().all(is_plain)
            && plan.links().iter().all(|link| link.by_name.is_none() && link.column.is_some())
    }

    pub(super) fn new(plan: &TablePlan, rows: RecordBatch) -> Result<Self, ArrowError> {
        let TableKind::Fact { time, links } = &plan.kind else { unreachable!("only facts suit") };
        let identity: Vec<ArrayRef> =
            plan.identity().into_iter().map(|name| named(&rows, name)).collect::<Result<_, _>>()?;
        let fields = identity.iter().map(|array| SortField::new(array.data_type().clone())).collect();
        let keys = RowConverter::new(fields)?.convert_columns(&identity)?;
        let times = named(&rows, time)?;
        let times = times.as_primitive::<TimestampMillisecondType>().values();
        let day = |row: u32| times[row as usize].div_euclid(DAY_MILLIS);
        let rank = ranks(&rows)?;
        // most are told apart by what lies here, without a look at the keys themselves
        let place = |row: u32| (day(row), start_of(keys.row(row as usize).as_ref()), row);
        let mut places: Vec<(i64, u64, u32)> = (0..rows.num_rows() as u32).map(place).collect();
        places.sort_unstable_by(|one, other| {
            let (a, b) = (one.2 as usize, other.2 as usize);
            let roughly = (one.0, one.1).cmp(&(other.0, other.1));
            roughly.then_with(|| keys.row(a).cmp(&keys.row(b))).then_with(|| rank[b].cmp(&rank[a]))
        });
        let mut order: Vec<u32> = places.into_iter().map(|(_, _, row)| row).collect();
        let mut losers = Vec::new();
        let mut last: Option<u32> = None;
        order.retain(|row| {
            let is_winner = last.is_none_or(|last| keys.row(last as usize) != keys.row(*row as usize));
            if is_winner {
                last = Some(*row)
            } else {
                losers.push(*row)
            }
            is_winner
        });
        let winner_count = order.len();
        let mut days: Vec<(NaiveDate, Range<usize>)> = Vec::new();
        for (place, row) in order.iter().enumerate() {
            let date = DateTime::from_timestamp_millis(day(*row) * DAY_MILLIS).unwrap_or_default().date_naive();
            match days.last_mut() {
                Some((last, range)) if *last == date => range.end = place + 1,
                _ => days.push((date, place..place + 1)),
            }
        }
        order.extend(losers);
        let names = links.iter().map(|link| Names::new(&rows, link)).collect::<Result<_, _>>()?;
        Ok(Self { rows, order, winner_count, days, names })
    }

    pub(super) fn names(&self) -> &[Names] {
        &self.names
    }

    /// `keys`: for each link, the key of each distinct name that is known.
    pub(super) fn encode(self, plan: &TablePlan, keys: &[Vec<Option<i64>>]) -> Result<TableRows, LoadError> {
        let failed = |source| LoadError::Column { connector: plan.connector.clone(), column: String::new(), source };
        let order = UInt32Array::from(self.order.clone());
        let (mut fields, mut arrays, mut links) = (Vec::new(), Vec::new(), Vec::new());
        let mut push = |field: Field, array: ArrayRef| {
            fields.push(field);
            arrays.push(array);
        };
        let schema = self.rows.schema();
        for column in plan.columns.iter().filter(|column| column.loaded) {
            let at = schema.index_of(&column.name).map_err(failed)?;
            push(schema.field(at).clone(), take(self.rows.column(at), &order, None).map_err(failed)?);
        }
        for (link, (names, keys)) in plan.links().iter().zip(self.names.iter().zip(keys)) {
            let key =
                |row: &u32| names.of_rows[*row as usize].map_or(0, |name| keys[name as usize].unwrap_or_default());
            push(
                Field::new(&link.member_key, DataType::Int64, false),
                Arc::new(Int64Array::from_iter_values(self.order.iter().map(key))),
            );
        }
        for (name, _) in LINEAGE_COLUMNS {
            let at = schema.index_of(name).map_err(failed)?;
            push(schema.field(at).clone(), take(self.rows.column(at), &order, None).map_err(failed)?);
        }
        let columns: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
        for link in plan.links() {
            links.push(columns.iter().position(|name| *name == link.member_key).expect("pushed above"));
        }
        let ordered = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(failed)?;
        let tuples = encoded(plan, &ordered)?;
        let (starts, places) = tuple_starts(&tuples, columns.len(), &links);
        let (mut gaps, mut unresolved) = (Vec::new(), vec![BTreeSet::new(); links.len()]);
        for (link, (names, keys)) in self.names.iter().zip(keys).enumerate() {
            if keys.iter().all(Option::is_some) {
                continue;
            }
            for (place, row) in self.order.iter().enumerate() {
                let Some(name) = names.of_rows[*row as usize].filter(|name| keys[*name as usize].is_none()) else {
                    continue;
                };
                let name = names.distinct[name as usize].clone();
                unresolved[link].insert(name.clone());
                gaps.push(Gap { at: places[place * links.len() + link], place, link, name });
            }
        }
        let grouped = plan.time().filter(|_| !plan.grouped.is_empty()).into_iter();
        let grouped = grouped.chain(plan.grouped.iter().map(String::as_str));
        let grouped: Vec<usize> = grouped.filter_map(|name| ordered.schema_ref().index_of(name).ok()).collect();
        let identity = plan.identity().into_iter().map(|name| KeyColumn::new(&ordered, name, self.winner_count));
        let identity = identity.collect::<Result<_, _>>().map_err(failed)?;
        Ok(TableRows {
            columns,
            tuples: tuples.freeze(),
            starts,
            winner_count: self.winner_count,
            days: self.days,
            grouped: ordered.project(&grouped).map_err(failed)?,
            identity,
            gaps,
            member_keys: plan.links().iter().map(|link| link.member_key.clone()).collect(),
            unresolved,
        })
    }
}

impl Names {
    fn new(rows: &RecordBatch, link: &Link) -> Result<Self, ArrowError> {
        let name = link.column.as_deref().unwrap_or_default();
        let array = named(rows, name)?;
        let mut places: HashMap<&str, u32, RandomState> = HashMap::default();
        let (mut distinct, mut of_rows) = (Vec::new(), Vec::with_capacity(array.len()));
        let texts = match array.data_type() {
            DataType::Utf8 => Arc::clone(&array),
            _ => uuid_texts(&array)?,
        };
        for text in texts.as_string::<i32>() {
            let place = text.filter(|text| !text.is_empty()).map(|text| {
                *places.entry(text).or_insert_with(|| {
                    distinct.push(text.to_owned());
                    distinct.len() as u32 - 1
                })
            });
            of_rows.push(place);
        }
        Ok(Self { distinct, of_rows })
    }
}

/// As the server spells them.
fn uuid_texts(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if !matches!(array.data_type(), DataType::FixedSizeBinary(16)) {
        return Err(ArrowError::SchemaError(format!("{} names no member", array.data_type())));
    }
    let spelled =
        |bytes: Option<&[u8]>| bytes.and_then(|bytes| Uuid::from_slice(bytes).ok()).map(|uuid| uuid.to_string());
    Ok(Arc::new(array.as_fixed_size_binary().iter().map(spelled).collect::<arrow::array::StringArray>()))
}

impl TableRows {
    pub(super) fn row_count(&self) -> usize {
        self.starts.len() - 1
    }

    /// Tuples with every key in its place.
    pub(super) fn filled(&self, keys: &[HashMap<String, i64>]) -> Result<Bytes, LoadError> {
        if self.gaps.is_empty() {
            return Ok(self.tuples.clone());
        }
        let mut tuples = self.tuples.to_vec();
        for Gap { at, link, name, .. } in &self.gaps {
            let key = keys[*link].get(name).ok_or(LoadError::MemberMissing)?;
            tuples[*at..*at + 8].copy_from_slice(&key.to_be_bytes());
        }
        Ok(tuples.into())
    }

    /// A column of `grouped` with every member's key in its place.
    pub(super) fn with_keys(
        &self,
        name: &str,
        values: &ArrayRef,
        keys: &[HashMap<String, i64>],
    ) -> Result<ArrayRef, LoadError> {
        let Some(link) = self.member_keys.iter().position(|key| key == name) else { return Ok(Arc::clone(values)) };
        let mut filled = values.as_primitive::<Int64Type>().values().to_vec();
        for gap in self.gaps.iter().filter(|gap| gap.link == link) {
            filled[gap.place] = *keys[link].get(&gap.name).ok_or(LoadError::MemberMissing)?;
        }
        Ok(Arc::new(Int64Array::from(filled)))
    }

    /// A complete COPY stream of the rows in `ranges`, which are sorted.
    pub(super) fn stream(&self, tuples: &Bytes, ranges: &[Range<usize>]) -> Vec<Bytes> {
        let mut chunks = vec![Bytes::from_static(HEAD)];
        for range in ranges {
            let mut rest = tuples.slice(self.starts[range.start]..self.starts[range.end]);
            while !rest.is_empty() {
                chunks.push(rest.split_to(rest.len().min(CHUNK_BYTES)));
            }
        }
        chunks.push(Bytes::from_static(END));
        chunks
    }

    /// The keys of winners, as parameters: an array for each column that names a row.
    pub(super) fn keys(&self, winners: &Range<usize>) -> Vec<Box<dyn ToSql + Sync + Send + '_>> {
        let column = |column: &KeyColumn| -> Box<dyn ToSql + Sync + Send> {
            match column {
                KeyColumn::Uuid(values) => Box::new(values[winners.clone()].to_vec()),
                KeyColumn::Text(values) => Box::new(values[winners.clone()].to_vec()),
                KeyColumn::Int4(values) => Box::new(values[winners.clone()].to_vec()),
                KeyColumn::Int8(values) => Box::new(values[winners.clone()].to_vec()),
                KeyColumn::Time(values) => Box::new(values[winners.clone()].to_vec()),
            }
        };
        self.identity.iter().map(column).collect()
    }
}

impl KeyColumn {
    fn new(rows: &RecordBatch, name: &str, count: usize) -> Result<Self, ArrowError> {
        let array = named(rows, name)?.slice(0, count);
        Ok(match array.data_type() {
            DataType::FixedSizeBinary(_) => {
                let values = array.as_fixed_size_binary();
                Self::Uuid((0..count).map(|row| Uuid::from_slice(values.value(row)).unwrap_or_default()).collect())
            }
            DataType::Int32 => Self::Int4(array.as_primitive::<Int32Type>().values().to_vec()),
            DataType::Int64 => Self::Int8(array.as_primitive::<Int64Type>().values().to_vec()),
            DataType::Timestamp(..) => {
                let values = array.as_primitive::<TimestampMillisecondType>().values();
                let time = |millis: &i64| DateTime::from_timestamp_millis(*millis).unwrap_or_default();
                Self::Time(values.iter().map(time).collect())
            }
            _ => Self::Text(array.as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_owned()).collect()),
        })
    }
}

fn named(rows: &RecordBatch, name: &str) -> Result<ArrayRef, ArrowError> {
    let found = rows.column_by_name(name).cloned();
    found.ok_or_else(|| ArrowError::SchemaError(format!("there is no column {name}")))
}

/// The first eight bytes of an encoded key: where they differ, they compare as the keys do.
fn start_of(key: &[u8]) -> u64 {
    let mut start = [0; 8];
    let count = key.len().min(start.len());
    start[..count].copy_from_slice(&key[..count]);
    u64::from_be_bytes(start)
}

/// The order among rows of one key: LOAD-2.
fn ranks(rows: &RecordBatch) -> Result<Vec<(i64, i64, i64, i64)>, ArrowError> {
    let (newer, time) = (named(rows, "_newer_at")?, named(rows, "_object_time")?);
    let (hash, row) = (named(rows, "_object_hash")?, named(rows, "_row")?);
    let newer = newer.as_primitive::<TimestampMicrosecondType>().values();
    let time = time.as_primitive::<TimestampMicrosecondType>().values();
    let (hash, row) = (hash.as_primitive::<Int64Type>().values(), row.as_primitive::<Int64Type>().values());
    Ok((0..rows.num_rows()).map(|at| (newer[at], time[at], hash[at], row[at])).collect())
}

/// The tuples alone.
fn encoded(plan: &TablePlan, rows: &RecordBatch) -> Result<BytesMut, LoadError> {
    let failed = |source| LoadError::Encode { connector: plan.connector.clone(), source };
    let mut encoder = encoder(&rows.schema(), &jsonb_columns(plan)).map_err(failed)?;
    let mut buffer = BytesMut::with_capacity(rows.num_rows() * 256);
    encoder.write_header(&mut buffer).map_err(failed)?;
    debug_assert_eq!(&buffer[..], HEAD, "a stream begins as the protocol says");
    let mut tuples = buffer.split_off(HEAD.len());
    encoder.write_batch(rows, &mut tuples).map_err(failed)?;
    Ok(tuples)
}

/// Where tuples begin, with the end, and where in each the fields `wanted` have their values.
fn tuple_starts(tuples: &[u8], field_count: usize, wanted: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let (mut starts, mut places, mut at) = (vec![0], Vec::new(), 0);
    while at < tuples.len() {
        at += 2;
        for field in 0..field_count {
            let length = i32::from_be_bytes(tuples[at..at + 4].try_into().expect("four bytes"));
            at += 4;
            if wanted.contains(&field) {
                places.push(at);
            }
            at += usize::try_from(length).unwrap_or_default();
        }
        starts.push(at);
    }
    (starts, places)
}
