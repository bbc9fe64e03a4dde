//! Expectations: SQL that must be true of a row. Null counts as failed, and so does a row that it cannot be
//! evaluated for (a division by zero, an overflow): one such row must not stop its neighbours.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::prelude::SessionContext;

use super::TransformError;
use super::tally::Tallies;
use crate::config::{Check, CheckStage, Connector, OnFail, ROW_COLUMN};

/// Of a row, after all expectations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Passed,
    Filtered,
    /// By the expectation of that index among those of rows.
    Rejected(usize),
}

#[derive(Debug)]
struct Planned {
    /// Among all expectations of the connector.
    index: usize,
    stage: CheckStage,
    name: String,
    sql: String,
    on_fail: OnFail,
    expr: Arc<dyn PhysicalExpr>,
}

#[derive(Debug)]
pub(super) struct Expectations(Vec<Planned>);

/// Arithmetic whose overflow is an error, not another number.
fn refusing_overflow(expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    let refusing = expr.transform_up(|expr| {
        let Some(binary) = expr.downcast_ref::<BinaryExpr>() else { return Ok(Transformed::no(expr)) };
        Ok(Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>))
    });
    Ok(refusing?.data)
}

impl Expectations {
    pub(super) fn new(connector: &Arc<Connector>) -> Result<Self, TransformError> {
        if connector.expectations.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let context = SessionContext::new();
        // Row numbers are no column of the connector; being the last, they shift no other.
        let schema_of = |connector: &Connector| {
            let schema = connector.decoded_schema();
            let fields: Vec<_> = schema.fields().iter().filter(|field| field.name() != ROW_COLUMN).cloned().collect();
            DFSchema::try_from(Schema::new(fields))
        };
        let (decoded, transformed) = (schema_of(connector), schema_of(connector.dataset()));
        let plan = |stage: CheckStage, sql: &str| {
            let schema = if stage == CheckStage::AfterDecode { &decoded } else { &transformed };
            let schema = schema.as_ref().map_err(|error| DataFusionError::Plan(error.to_string()))?;
            let expr = context.create_physical_expr(context.parse_sql_expr(sql, schema)?, schema)?;
            let expr = refusing_overflow(expr)?;
            match expr.data_type(schema.as_arrow())? {
                DataType::Boolean => Ok(expr),
                other => Err(DataFusionError::Plan(format!("it gives {other}, not a boolean"))),
            }
        };
        let of_rows =
            connector.expectations.iter().enumerate().filter_map(|(index, expectation)| match &expectation.check {
                Check::Row(sql) => Some((index, expectation, sql)),
                _ => None,
            });
        let planned = of_rows.map(|(index, expectation, sql)| {
            let expr = plan(expectation.stage, sql).map_err(|source| TransformError::Plan {
                connector: connector.name.clone(),
                expectation: expectation.name.clone(),
                source: Box::new(source),
            })?;
            Ok(Planned {
                index,
                stage: expectation.stage,
                name: expectation.name.clone(),
                sql: sql.clone(),
                on_fail: expectation.on_fail,
                expr,
            })
        });
        Ok(Self(planned.collect::<Result<_, TransformError>>()?))
    }

    pub(super) fn has(&self, stage: CheckStage) -> bool {
        self.0.iter().any(|planned| planned.stage == stage)
    }

    /// The fate of each row at a stage; counts for each expectation the rows it saw and those that failed it.
    pub(super) fn judge(&self, stage: CheckStage, rows: &RecordBatch, tallies: &mut Tallies) -> Vec<Fate> {
        let mut fates = vec![Fate::Passed; rows.num_rows()];
        let mut seen = rows.num_rows();
        for (index, planned) in self.0.iter().enumerate().filter(|(_, planned)| planned.stage == stage) {
            let holds = planned.holds(rows);
            if holds.true_count() == holds.len() {
                tallies.count(planned.index, seen, 0);
                continue;
            }
            let mut failed = 0;
            for (row, fate) in fates.iter_mut().enumerate() {
                let has_failed = *fate == Fate::Passed && (holds.is_null(row) || !holds.value(row));
                if !has_failed {
                    continue;
                }
                failed += 1;
                match planned.on_fail {
                    OnFail::Warn => {}
                    OnFail::Drop => *fate = Fate::Filtered,
                    OnFail::Reject | OnFail::Fail => *fate = Fate::Rejected(index),
                }
            }
            tallies.count(planned.index, seen, failed);
            seen -= if planned.on_fail == OnFail::Warn { 0 } else { failed };
        }
        fates
    }

    /// What a dead letter of it says.
    pub(super) fn detail(&self, expectation: usize) -> String {
        let planned = &self.0[expectation];
        format!("expectation `{}` failed: {}", planned.name, planned.sql)
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
