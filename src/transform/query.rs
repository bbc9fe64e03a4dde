//! SQL on a connector's cleaned rows: at most one row made of each.
//!
//! # Contract
//! What becomes of a row depends on the row alone. Rows that the SQL leaves out are filtered. Where it fails (a cast, an
//! overflow, a division by zero, more than one row made of one, a null where none may be) the rows to blame are found by
//! bisection and rejected; their neighbours pass. Lineage stays, and so does the order of the rows.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, UInt32Array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches, take, take_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::collect;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use futures::executor::block_on;

use super::sieve::Sieve;
use super::{TransformError, Transformed};
use crate::config::{Connector, InputRows, PLACE_COLUMN, QueryPlan, ROW_COLUMN, SqlTransform, plan_query};
use crate::types::RejectReason;

#[derive(Debug)]
pub(super) struct Query {
    plan: QueryPlan,
    /// What it makes: [`Connector::decoded_schema`] of the dataset.
    schema: SchemaRef,
}

/// Rows made, each with its place among those it was run on, in that order.
struct Made {
    rows: Vec<(RecordBatch, Vec<usize>)>,
    /// By place: why no row could be made.
    failed: BTreeMap<usize, String>,
}

impl Query {
    pub(super) fn new(connector: &Connector, transform: &SqlTransform) -> Result<Self, TransformError> {
        let plan = plan_query(connector, &transform.sql)
            .map_err(|source| TransformError::Sql { connector: connector.name.clone(), source })?;
        Ok(Self { plan, schema: transform.dataset.decoded_schema() })
    }

    /// Puts what the SQL makes in the place of the rows that are left.
    pub(super) fn apply(&self, sieve: &mut Sieve<'_>, transformed: &mut Transformed) -> Result<(), ArrowError> {
        let rows = sieve.rows()?;
        let count = rows.num_rows();
        let mut made = Made { rows: Vec::new(), failed: BTreeMap::new() };
        if count > 0 {
            self.run(&rows, 0..count, &mut made);
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
    fn run(&self, rows: &RecordBatch, range: Range<usize>, made: &mut Made) {
        match self.try_run(&rows.slice(range.start, range.len()), range.start) {
            Ok((batch, places, failed)) => {
                made.failed.extend(failed);
                if !places.is_empty() {
                    made.rows.push((batch, places));
                }
            }
            Err(error) if range.len() == 1 => _ = made.failed.insert(range.start, why(&error).to_owned()),
            Err(_) => {
                let middle = range.start + range.len() / 2;
                self.run(rows, range.start..middle, made);
                self.run(rows, middle..range.end, made);
            }
        }
    }

    /// The columns of the dataset without the row's number, places, and rows that cannot be used.
    #[allow(clippy::type_complexity, reason = "taken apart where it is called, once")]
    fn try_run(
        &self,
        rows: &RecordBatch,
        first: usize,
    ) -> Result<(RecordBatch, Vec<usize>, BTreeMap<usize, String>), DataFusionError> {
        let mut columns = rows.columns().to_vec();
        columns.pop();
        columns.push(Arc::new((0..rows.num_rows() as i64).collect::<Int64Array>()));
        let input = RecordBatch::try_new(Arc::clone(&self.plan.input_schema), columns)?;
        let config = self.plan.config.clone().with_extension(Arc::new(InputRows(vec![input])));
        let context = Arc::new(TaskContext::default().with_session_config(config));
        let plan = reset_plan_states(Arc::clone(&self.plan.physical))?;
        let schema = plan.schema();
        let made = concat_batches(&schema, &block_on(collect(plan, context))?)?;
        let place_index = schema.index_of(PLACE_COLUMN)?;
        let places = made.column(place_index).as_primitive::<Int64Type>();
        let mut order: Vec<u32> = (0..made.num_rows() as u32).collect();
        order.sort_by_key(|row| places.value(*row as usize));
        let place = |row: u32| first + places.value(row as usize) as usize;
        let mut failed = BTreeMap::new();
        for pair in order.windows(2).filter(|pair| place(pair[0]) == place(pair[1])) {
            failed.insert(place(pair[0]), "the SQL makes more than one row of it".to_owned());
        }
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
