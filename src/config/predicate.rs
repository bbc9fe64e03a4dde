//! SQL that is true of a row or is not, ready to run: of expectations, and of filters of what is loaded.
//!
//! # Contract
//! What it says of a row depends on the row alone. Null where it cannot be told: where the SQL gives null, and where it cannot be
//! evaluated for the row (a division by zero, an overflow), which says nothing about the row's neighbours.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::prelude::SessionContext;

#[derive(Debug)]
pub struct Predicate(Arc<dyn PhysicalExpr>);

impl Predicate {
    /// SQL text → logical → physical expression, which then costs nothing per row but its evaluation. `schema`: the columns that
    /// rows have, in their order, and maybe more behind them.
    pub fn plan(context: &SessionContext, sql: &str, schema: &DFSchema) -> Result<Self, DataFusionError> {
        let expr = context.create_physical_expr(context.parse_sql_expr(sql, schema)?, schema)?;
        // arithmetic whose overflow is an error, not another number
        let refusing = expr.transform_up(|expr| {
            let Some(binary) = expr.downcast_ref::<BinaryExpr>() else { return Ok(Transformed::no(expr)) };
            Ok(Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>))
        });
        let expr = refusing?.data;
        match expr.data_type(schema.as_arrow())? {
            DataType::Boolean => Ok(Self(expr)),
            other => Err(DataFusionError::Plan(format!("it gives {other}, not a boolean"))),
        }
    }

    pub fn holds(&self, rows: &RecordBatch) -> BooleanArray {
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
        let holds = self.0.evaluate(rows)?.into_array(rows.num_rows())?;
        let is_boolean = holds.as_boolean_opt().cloned();
        is_boolean.ok_or_else(|| DataFusionError::Plan(format!("it gives {}, not a boolean", holds.data_type())))
    }
}
