//! SQL on a connector's cleaned rows: at most one row made of each.
//!
//! # Contract
//! What becomes of a row depends on the row alone, and on the rows of the tables that the SQL joins: those that there are when
//! its block is begun, and the same for the whole block. Rows that the SQL leaves out are filtered. Where it fails (a cast, an
//! overflow, a division by zero, more than one row made of one, a null where none may be) the rows to blame are found by
//! bisection and rejected; their neighbours pass. Lineage stays, and so does the order of the rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches, filter_record_batch, take, take_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use futures::executor::block_on_stream;

use super::sieve::Sieve;
use super::{TransformError, Transformed};
use crate::config::{Connector, JoinTable, PLACE_COLUMN, QueryPlan, ROW_COLUMN, RunRows, SqlTransform, plan_query};
use crate::types::RejectReason;

#[derive(Debug)]
pub(super) struct Query {
    plan: QueryPlan,
    /// What it makes: [`Connector::decoded_schema`] of the dataset.
    schema: SchemaRef,
    tables: Vec<Arc<JoinTable>>,
}

/// Rows of the tables that are joined.
type Joined = Arc<HashMap<String, RecordBatch>>;

/// Rows made, each with its place among those it was run on, in that order.
struct Made {
    rows: Vec<(RecordBatch, Vec<usize>)>,
    /// By place: why no row could be made.
    failed: BTreeMap<usize, String>,
}

impl Query {
    pub(super) fn new(connector: &Connector, transform: &SqlTransform) -> Result<Self, TransformError> {
        let plan = plan_query(connector, &transform.sql, &transform.tables)
            .map_err(|source| TransformError::Sql { connector: connector.name.clone(), source })?;
        Ok(Self { plan, schema: transform.dataset.decoded_schema(), tables: transform.tables.clone() })
    }

    /// The rows that the tables have now; the name of one that was never read.
    pub(super) fn joined(&self) -> Result<Joined, &str> {
        let rows = self.tables.iter().map(|table| Ok((table.name.clone(), table.rows().ok_or(table.name.as_str())?)));
        rows.collect::<Result<HashMap<_, _>, _>>().map(Arc::new)
    }

    /// Puts what the SQL makes in the place of the rows that are left.
    pub(super) fn apply(
        &self,
        joined: &Joined,
        sieve: &mut Sieve<'_>,
        transformed: &mut Transformed,
    ) -> Result<(), ArrowError> {
        let rows = sieve.rows()?;
        let count = rows.num_rows();
        let mut made = Made { rows: Vec::new(), failed: BTreeMap::new() };
        if count > 0 {
            self.run(&rows, joined, 0..count, &mut made);
        }
        let places: Vec<usize> = made.rows.iter().flat_map(|(_, places)| places).copied().collect();
        transformed.filtered += (count - places.len() - made.failed.len()) as u64;
        for (place, detail) in &made.failed {
            transformed.rejects.push(sieve.reject(*place, RejectReason::SqlFailed, detail.clone()));
        }
        let numbers = rows.column(rows.num_columns() - 1);
        let kept: UInt32Array = places.iter().map(|place| *place as u32).collect();
        let batches: Vec<RecordBatch> = made.rows.into_iter().map(|(batch, _)| batch).collect();
        let columns = if batches.is_empty() {
            RecordBatch::new_empty(Arc::clone(&self.schema)).columns().to_vec()
        } else {
            let mut columns = concat_batches(&batches[0].schema(), &batches)?.columns().to_vec();
            columns.push(take(numbers, &kept, None)?);
            columns
        };
        sieve.replace(&self.schema, columns, &places);
        Ok(())
    }

    /// By halves, where they fail together.
    fn run(&self, rows: &RecordBatch, joined: &Joined, range: Range<usize>, made: &mut Made) {
        match self.try_run(&rows.slice(range.start, range.len()), joined, range.start) {
            Ok((batch, places, failed)) => {
                made.failed.extend(failed);
                if !places.is_empty() {
                    made.rows.push((batch, places));
                }
            }
            Err(error) if range.len() == 1 => _ = made.failed.insert(range.start, why(&error).to_owned()),
            Err(_) => {
                let middle = range.start + range.len() / 2;
                self.run(rows, joined, range.start..middle, made);
                self.run(rows, joined, middle..range.end, made);
            }
        }
    }

    /// The columns of the dataset without the row's number, places, and rows that cannot be used.
    #[allow(clippy::type_complexity, reason = "taken apart where it is called, once")]
    fn try_run(
        &self,
        rows: &RecordBatch,
        joined: &Joined,
        first: usize,
    ) -> Result<(RecordBatch, Vec<usize>, BTreeMap<usize, String>), DataFusionError> {
        let mut columns = rows.columns().to_vec();
        columns.pop();
        columns.push(Arc::new((0..rows.num_rows() as i64).collect::<Int64Array>()));
        let input = RecordBatch::try_new(Arc::clone(&self.plan.input_schema), columns)?;
        let run = RunRows { input, tables: Arc::clone(joined) };
        let config = self.plan.config.clone().with_extension(Arc::new(run));
        let context = Arc::new(TaskContext::default().with_session_config(config));
        let plan = reset_plan_states(Arc::clone(&self.plan.physical))?;
        let schema = plan.schema();
        let place_index = schema.index_of(PLACE_COLUMN)?;
        let (made, repeated) = one_of_each(execute_stream(plan, context)?, place_index, rows.num_rows())?;
        let places = made.column(place_index).as_primitive::<Int64Type>();
        let mut order: Vec<u32> = (0..made.num_rows() as u32).collect();
        order.sort_by_key(|row| places.value(*row as usize));
        let place = |row: u32| first + places.value(row as usize) as usize;
        let more = |row: usize| (first + row, "the SQL makes more than one row of it".to_owned());
        let mut failed: BTreeMap<usize, String> = repeated.into_iter().map(more).collect();
        let mut fields = Vec::with_capacity(self.schema.fields().len() - 1);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(fields.capacity());
        for field in self.schema.fields().iter().filter(|field| field.name() != ROW_COLUMN) {
            // `_rescued` is the last, wherever the SQL has it
            let index = schema.index_of(field.name())?;
            let strict = CastOptions { safe: false, ..CastOptions::default() };
            let column = cast_with_options(made.column(index), field.data_type(), &strict)?;
            if !field.is_nullable() && column.null_count() > 0 {
                for row in (0..made.num_rows() as u32).filter(|row| column.is_null(*row as usize)) {
                    failed.entry(place(row)).or_insert_with(|| format!("the SQL gives no `{}`", field.name()));
                }
            }
            // a null that may not be goes with its row, below
            fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
            columns.push(column);
        }
        order.retain(|row| !failed.contains_key(&place(*row)));
        let places = order.iter().map(|row| place(*row)).collect();
        let schema = Arc::new(arrow::datatypes::Schema::new(fields));
        let made = take_record_batch(&RecordBatch::try_new(schema, columns)?, &UInt32Array::from(order))?;
        Ok((made, places, failed))
    }
}

/// The first row that is made of each of the `count` rows, and the rows of which more are made: a join may make as many as
/// there are pairs, which no memory takes.
fn one_of_each(
    stream: SendableRecordBatchStream,
    place_index: usize,
    count: usize,
) -> Result<(RecordBatch, BTreeSet<usize>), DataFusionError> {
    let (mut seen, mut repeated) = (vec![false; count], BTreeSet::new());
    let (schema, mut kept) = (stream.schema(), Vec::new());
    for batch in block_on_stream(stream) {
        let batch = batch?;
        let places = batch.column(place_index).as_primitive::<Int64Type>().values();
        let first: BooleanArray = places
            .iter()
            .map(|place| {
                let is_first = !std::mem::replace(&mut seen[*place as usize], true);
                if !is_first {
                    repeated.insert(*place as usize);
                }
                Some(is_first)
            })
            .collect();
        kept.push(if first.true_count() == batch.num_rows() { batch } else { filter_record_batch(&batch, &first)? });
    }
    Ok((concat_batches(&schema, &kept)?, repeated))
}

/// For a person, and without a value of the row, which errors of casts hold.
fn why(error: &DataFusionError) -> &'static str {
    match error.find_root() {
        DataFusionError::ArrowError(error, _) => match &**error {
            ArrowError::CastError(_) | ArrowError::ParseError(_) => "the SQL fails: a value cannot be cast",
            ArrowError::DivideByZero => "the SQL fails: a division by zero",
            ArrowError::ArithmeticOverflow(_) => "the SQL fails: an overflow",
            _ => "the SQL fails on it",
        },
        _ => "the SQL fails on it",
    }
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
