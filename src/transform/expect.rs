//! Expectations: boolean SQL over a row, planned once, evaluated a batch at a time.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionContext;

use super::TransformError;
use crate::config::{Connector, OnFail, ROW_COLUMN};

#[derive(Debug)]
pub(super) struct PlannedExpectation {
    pub(super) name: String,
    pub(super) sql: String,
    on_fail: OnFail,
    expr: Arc<dyn PhysicalExpr>,
}

/// What the expectations say of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Drop,
    /// By this expectation.
    Reject(usize),
}

pub(super) fn plan(connector: &Connector) -> Result<Vec<PlannedExpectation>, TransformError> {
    let context = SessionContext::new();
    let schema = connector.decoded_schema();
    connector
        .expectations
        .iter()
        .map(|expectation| {
            let planned = || -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
                let schema = DFSchema::try_from(Schema::clone(&schema))?;
                let expr = context.parse_sql_expr(&expectation.expr, &schema)?;
                context.create_physical_expr(expr, &schema)
            };
            let expr = planned().map_err(|source| TransformError::Plan {
                connector: connector.name.clone(),
                expectation: expectation.name.clone(),
                source: Box::new(source),
            })?;
            let (name, sql) = (expectation.name.clone(), expectation.expr.clone());
            Ok(PlannedExpectation { name, sql, on_fail: expectation.on_fail, expr })
        })
        .collect()
}

/// One verdict a row; counts the failures of each expectation.
pub(super) fn judge(
    expectations: &[PlannedExpectation],
    rows: &RecordBatch,
    failures: &mut [(String, u64)],
) -> Result<Vec<Verdict>, TransformError> {
    let mut verdicts = vec![Verdict::Pass; rows.num_rows()];
    for (index, expectation) in expectations.iter().enumerate() {
        let truth = evaluate(expectation, rows)?;
        if truth.null_count() == 0 && truth.true_count() == rows.num_rows() {
            continue;
        }
        for (row, verdict) in verdicts.iter_mut().enumerate() {
            if truth.is_valid(row) && truth.value(row) {
                continue;
            }
            failures[index].1 += 1;
            if *verdict == Verdict::Pass {
                *verdict = match expectation.on_fail {
                    OnFail::Warn => Verdict::Pass,
                    OnFail::Drop => Verdict::Drop,
                    OnFail::Reject => Verdict::Reject(index),
                };
            }
        }
    }
    Ok(verdicts)
}

fn evaluate(expectation: &PlannedExpectation, rows: &RecordBatch) -> Result<BooleanArray, TransformError> {
    let failed = |source| TransformError::Evaluate { expectation: expectation.name.clone(), source: Box::new(source) };
    let array = expectation
        .expr
        .evaluate(rows)
        .and_then(|value| value.into_array(rows.num_rows()))
        .and_then(|array| arrow::compute::cast(&array, &DataType::Boolean).map_err(Into::into))
        .map_err(failed)?;
    Ok(array.as_boolean().clone())
}

/// The `_row` column.
pub(super) fn row_numbers(rows: &RecordBatch) -> Result<Int64Array, TransformError> {
    rows.column_by_name(ROW_COLUMN)
        .and_then(|column| column.as_primitive_opt::<Int64Type>().cloned())
        .ok_or_else(|| TransformError::ColumnMissing { column: ROW_COLUMN.into() })
}
