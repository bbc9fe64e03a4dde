//! Expectations: SQL that must be true of a row. Null counts as failed, and so does a row that it cannot be
//! evaluated for (a division by zero, an overflow): one such row must not stop its neighbours.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;

use super::TransformError;
use super::tally::Tallies;
use crate::config::{Check, CheckStage, Connector, OnFail, Predicate, ROW_COLUMN};

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
    predicate: Predicate,
}

#[derive(Debug)]
pub(super) struct Expectations(Vec<Planned>);

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
            Predicate::plan(&context, sql, schema)
        };
        let of_rows =
            connector.expectations.iter().enumerate().filter_map(|(index, expectation)| match &expectation.check {
                Check::Row(sql) => Some((index, expectation, sql)),
                _ => None,
            });
        let planned = of_rows.map(|(index, expectation, sql)| {
            let predicate = plan(expectation.stage, sql).map_err(|source| TransformError::Plan {
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
                predicate,
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
            let holds = planned.predicate.holds(rows);
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
