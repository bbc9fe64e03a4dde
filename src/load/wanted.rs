//! Which rows of a connector go into its table: those that its `load.rows` is true of.
//!
//! # Contract
//! The filter depends on the row alone, so a replay decides alike. Null is not true, and neither is what cannot be evaluated for a row (a
//! division by zero, an overflow): such a row stays in the lake, and its neighbours are loaded.

use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;

use super::error::LoadError;
use crate::config::{Connector, Predicate, RESCUED_COLUMN};

/// A filter ready to run.
#[derive(Debug)]
pub(super) struct Wanted {
    connector: String,
    predicate: Predicate,
    /// What it is planned over: the columns that it names.
    schema: SchemaRef,
}

impl Wanted {
    /// `None`: all rows are loaded.
    pub(super) fn new(connector: &Connector) -> Result<Option<Self>, LoadError> {
        let Some(sql) = connector.warehouse.as_ref().and_then(|warehouse| warehouse.rows.as_ref()) else {
            return Ok(None);
        };
        let planned = plan(connector, sql)
            .map_err(|source| LoadError::Filter { connector: connector.name.clone(), source: Box::new(source) })?;
        let (predicate, schema) = planned;
        Ok(Some(Self { connector: connector.name.clone(), predicate, schema }))
    }

    /// The rows that it is true of, with all their columns.
    pub(super) fn filter(&self, rows: &RecordBatch) -> Result<RecordBatch, LoadError> {
        let failed = |column: &str| {
            let (connector, column) = (self.connector.clone(), column.to_owned());
            move |source| LoadError::Column { connector, column, source }
        };
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for field in self.schema.fields() {
            columns.push(as_planned(rows, field).map_err(failed(field.name()))?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let seen =
            RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(failed(""))?;
        filter_record_batch(rows, &self.predicate.holds(&seen)).map_err(failed(""))
    }
}

fn plan(connector: &Connector, sql: &str) -> Result<(Predicate, SchemaRef), DataFusionError> {
    let lake = connector.lake_schema();
    let is_own = |name: &str| connector.field(name).is_some() || (connector.rescues() && name == RESCUED_COLUMN);
    // of another schema's file a column may be missing
    let fields = lake.fields().iter().filter(|field| is_own(field.name()));
    let schema =
        Arc::new(Schema::new(fields.map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()));
    let (context, named) = (SessionContext::new(), DFSchema::try_from(Arc::clone(&schema))?);
    // a column that it does not look at may have any type
    let parsed = context.parse_sql_expr(sql, &named)?;
    let is_seen = |name: &str| parsed.column_refs().iter().any(|column| column.name == name);
    let seen = schema.fields().iter().filter(|field| is_seen(field.name())).cloned().collect::<Vec<_>>();
    let schema = Arc::new(Schema::new(seen));
    Ok((Predicate::plan(&context, sql, &DFSchema::try_from(Arc::clone(&schema))?)?, schema))
}

/// The lake's column as the filter was planned for; null where its file is older than the column.
fn as_planned(rows: &RecordBatch, field: &Field) -> Result<ArrayRef, ArrowError> {
    let Some(column) = rows.column_by_name(field.name()) else {
        return Ok(new_null_array(field.data_type(), rows.num_rows()));
    };
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    cast_with_options(column, field.data_type(), &CastOptions { safe: false, ..CastOptions::default() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arrow::array::{Array, AsArray, Decimal128Array, Int32Array, StringArray};
    use arrow::datatypes::{DataType, Int32Type};

    use super::*;
    use crate::config::load_connectors;

    fn wanted(sql: &str) -> Wanted {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("connectors");
        let connectors = load_connectors(&folder).expect("the shipped connectors are valid");
        let mut connector = Connector::clone(connectors.by_name("transactions").expect("shipped"));
        connector.warehouse.as_mut().expect("loaded").rows = Some(sql.to_owned());
        Wanted::new(&connector).expect("can be planned").expect("there is a filter")
    }

    fn amounts(cents: &[Option<i128>]) -> ArrayRef {
        let amounts = Decimal128Array::from(cents.to_vec()).with_precision_and_scale(12, 2);
        Arc::new(amounts.expect("twelve digits"))
    }

    fn kept(sql: &str, columns: Vec<(&str, ArrayRef)>) -> Vec<i32> {
        let count = columns[0].1.len();
        let places: ArrayRef = Arc::new((0..count as i32).collect::<Int32Array>());
        let rows = RecordBatch::try_from_iter(columns.into_iter().chain([("_place", places)])).expect("of one length");
        let kept = wanted(sql).filter(&rows).expect("can be filtered");
        assert_eq!(kept.schema(), rows.schema(), "all columns stay");
        kept.column_by_name("_place").expect("handed on").as_primitive::<Int32Type>().values().to_vec()
    }

    #[test]
    fn rows_that_it_is_not_true_of_stay_out() {
        let sources: ArrayRef = Arc::new(StringArray::from(vec![Some("web"), Some("test"), None]));
        assert_eq!(kept("source <> 'test'", vec![("source", sources)]), [0], "null is not true");
        let found = kept("amount >= 0.50", vec![("amount", amounts(&[Some(50), Some(49), None, Some(51)]))]);
        assert_eq!(found, [0, 3]);
    }

    #[test]
    fn a_row_that_it_cannot_be_evaluated_for_stays_out_alone() {
        let quantities: ArrayRef = Arc::new(Int32Array::from(vec![2, 0, 4, i32::MAX]));
        assert_eq!(kept("8 / quantity >= 2", vec![("quantity", quantities)]), [0, 2]);
    }

    #[test]
    fn a_file_of_an_older_schema_is_read_as_the_filter_needs_it() {
        let sources: ArrayRef = Arc::new(StringArray::from(vec!["web", "test"]));
        assert_eq!(kept("quantity IS NULL AND source = 'web'", vec![("source", Arc::clone(&sources))]), [0]);
        let narrow: ArrayRef =
            Arc::new(Decimal128Array::from(vec![1, 2]).with_precision_and_scale(4, 1).expect("four digits"));
        assert_eq!(kept("amount > 0.15", vec![("amount", narrow)]), [1]);
        let field = Field::new("quantity", DataType::Int32, true);
        let rows = RecordBatch::try_from_iter([("source", sources)]).expect("one column");
        assert_eq!(as_planned(&rows, &field).expect("null").null_count(), 2);
    }
}
