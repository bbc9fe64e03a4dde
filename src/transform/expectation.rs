//! Expectations: SQL that must be true of a row. Null counts as failed, and so does a row that it cannot be
//! evaluated for (a division by zero, an overflow): one such row must not stop its neighbours.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;

use super::TransformError;
use crate::config::{Connector, OnFail, ROW_COLUMN};
use crate::types::{DecodedBatch, RejectReason, RowReject};

/// Of a row, after all expectations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Passed,
    Filtered,
    /// By the expectation of that index.
    Rejected(usize),
}

#[derive(Debug)]
struct Planned {
    name: String,
    sql: String,
    on_fail: OnFail,
    expr: Arc<dyn PhysicalExpr>,
}

#[derive(Debug)]
pub(super) struct Expectations(Vec<Planned>);

impl Expectations {
    pub(super) fn new(connector: &Connector) -> Result<Self, TransformError> {
        if connector.expectations.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let context = SessionContext::new();
        // Row numbers are no column of the connector; being the last, they shift no other.
        let fields: Vec<_> =
            connector.decoded_schema().fields().iter().filter(|field| field.name() != ROW_COLUMN).cloned().collect();
        let schema = DFSchema::try_from(Schema::new(fields));
        let plan = |sql: &str| {
            let schema = schema.as_ref().map_err(|error| DataFusionError::Plan(error.to_string()))?;
            let expr = context.create_physical_expr(context.parse_sql_expr(sql, schema)?, schema)?;
            match expr.data_type(schema.as_arrow())? {
                DataType::Boolean => Ok(expr),
                other => Err(DataFusionError::Plan(format!("it gives {other}, not a boolean"))),
            }
        };
        let planned = connector.expectations.iter().map(|expectation| {
            let expr = plan(&expectation.expr).map_err(|source| TransformError::Plan {
                connector: connector.name.clone(),
                expectation: expectation.name.clone(),
                source: Box::new(source),
            })?;
            Ok(Planned {
                name: expectation.name.clone(),
                sql: expectation.expr.clone(),
                on_fail: expectation.on_fail,
                expr,
            })
        });
        Ok(Self(planned.collect::<Result<_, TransformError>>()?))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The fate of each row. Adds to `failure_counts`, one for each expectation.
    pub(super) fn judge(&self, rows: &RecordBatch, failure_counts: &mut [u64]) -> Vec<Fate> {
        let mut fates = vec![Fate::Passed; rows.num_rows()];
        for (index, planned) in self.0.iter().enumerate() {
            let holds = planned.holds(rows);
            if holds.true_count() == holds.len() {
                continue;
            }
            for (row, fate) in fates.iter_mut().enumerate() {
                let has_failed = *fate == Fate::Passed && (holds.is_null(row) || !holds.value(row));
                if !has_failed {
                    continue;
                }
                failure_counts[index] += 1;
                match planned.on_fail {
                    OnFail::Warn => {}
                    OnFail::Drop => *fate = Fate::Filtered,
                    OnFail::Reject | OnFail::Fail => *fate = Fate::Rejected(index),
                }
            }
        }
        fates
    }

    /// The reject of one row of a batch, with its bytes as they were before cleaning.
    pub(super) fn reject(&self, expectation: usize, batch: &DecodedBatch, index: usize) -> RowReject {
        let planned = &self.0[expectation];
        let numbers: &Int64Array = batch.rows.column(batch.rows.num_columns() - 1).as_primitive::<Int64Type>();
        RowReject {
            row: numbers.value(index),
            byte_offset: batch.spans[index].byte_offset,
            reason: RejectReason::ExpectationFailed,
            detail: format!("expectation `{}` failed: {}", planned.name, planned.sql),
            bytes: batch.row_bytes(index),
        }
    }

    /// The first that stops the connector.
    pub(super) fn failed(&self, counts: &[u64]) -> Option<String> {
        let mut counted = self.0.iter().zip(counts);
        counted
            .find(|(planned, count)| planned.on_fail == OnFail::Fail && **count > 0)
            .map(|(planned, _)| planned.name.clone())
    }

    /// Counts with their names, without zeros.
    pub(super) fn named(&self, counts: &[u64]) -> Vec<(String, u64)> {
        let named = self.0.iter().zip(counts).filter(|(_, count)| **count > 0);
        named.map(|(planned, count)| (planned.name.clone(), *count)).collect()
    }
}

impl Planned {
    /// Null, too, where it cannot be told.
    fn holds(&self, rows: &RecordBatch) -> BooleanArray {
        match self.evaluate(rows) {
            Ok(holds) => holds,
            // Arrow fails a batch as a whole: find the rows that are to blame.
            Err(_) => (0..rows.num_rows())
                .map(|row| match self.evaluate(&rows.slice(row, 1)) {
                    Ok(holds) => holds.is_valid(0).then(|| holds.value(0)),
                    Err(_) => None,
                })
                .collect(),
        }
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<BooleanArray, DataFusionError> {
        let holds = self.expr.evaluate(rows)?.into_array(rows.num_rows())?;
        match holds.as_boolean_opt() {
            Some(holds) => Ok(holds.clone()),
            None => Err(DataFusionError::Plan(format!("gives {}, not a boolean", holds.data_type()))),
        }
    }
}
