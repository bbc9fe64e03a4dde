//! Schemas that grow with the data: what a process knows of them, and rows of several of them made one.
//!
//! # Contract
//! A connector's known schema only grows, by the join of what its objects showed. A micro-batch, and each chunk of a
//! large object, is written with the union of its rows' schemas, so that old and new producers side by side make no
//! more files than one of them.
//! A column is widened to exactly what its rows would have been, had the wider schema been known; for numbers
//! of more than 38 digits, which are doubles until they are text, that is as exact as a double.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, Float64Array, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::decode_rows::unusable;
use super::decode_task::Fault;
use crate::config::{Connector, FieldType, arrow_type, seen_from_json};
use crate::decode::plain_number;
use crate::transform::{TransformError, TransformPlan, Transformed};
use crate::types::{OriginRows, plain_decimal};

#[derive(Debug, thiserror::Error)]
#[error("could not widen column `{column}`")]
pub struct EvolutionError {
    column: String,
    source: ArrowError,
}

/// A connector as far as its data has changed it, and what it does to rows.
#[derive(Debug, Clone)]
pub(super) struct CurrentSchema {
    pub(super) connector: Arc<Connector>,
    pub(super) plan: Arc<TransformPlan>,
}

impl CurrentSchema {
    fn new(connector: Arc<Connector>) -> Result<Self, TransformError> {
        let plan = Arc::new(TransformPlan::new(&connector)?);
        Ok(Self { connector, plan })
    }
}

/// What the data made of each connector, as far as this process knows.
#[derive(Debug)]
pub(super) struct EvolvedSchemas(Mutex<HashMap<String, CurrentSchema>>);

impl EvolvedSchemas {
    /// Plans every connector's expectations.
    pub(super) fn new(connectors: &[Arc<Connector>]) -> Result<Self, TransformError> {
        let schemas = connectors
            .iter()
            .map(|connector| Ok((connector.name.clone(), CurrentSchema::new(Arc::clone(connector))?)))
            .collect::<Result<_, TransformError>>()?;
        Ok(Self(Mutex::new(schemas)))
    }

    pub(super) fn current(&self, connector: &str) -> CurrentSchema {
        let schemas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        schemas.get(connector).cloned().expect("made from the same connectors")
    }

    /// What a connector does to rows; it is planned anew where it is neither what was declared nor what is known.
    pub(super) fn plan(&self, connector: &Arc<Connector>) -> Result<Arc<TransformPlan>, TransformError> {
        let known = self.current(&connector.name);
        // rows of the dataset that SQL makes are read back by its columns
        let is_dataset = known.plan.dataset().schema_revision == connector.schema_revision;
        if known.connector.schema_revision == connector.schema_revision || is_dataset {
            return Ok(known.plan);
        }
        TransformPlan::new(connector).map(Arc::new)
    }

    /// Takes note of what an object made of the connector that it was decoded by; returns how its rows go on.
    pub(super) fn learn(&self, by: &CurrentSchema, grown: Arc<Connector>) -> Result<CurrentSchema, TransformError> {
        if Arc::ptr_eq(&by.connector, &grown) {
            return Ok(by.clone());
        }
        let of_rows = CurrentSchema::new(grown)?;
        loop {
            let known = self.current(&of_rows.connector.name);
            let united = known.connector.united(&of_rows.connector);
            if united.schema_revision == known.connector.schema_revision {
                return Ok(of_rows);
            }
            let united = CurrentSchema::new(Arc::new(united))?;
            let mut schemas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = schemas.get_mut(&of_rows.connector.name).expect("made from the same connectors");
            // planned without the lock: another object may have grown it meanwhile
            if Arc::ptr_eq(&entry.connector, &known.connector) {
                tracing::info!(component = "decode", connector = %united.connector.name, schema_revision = %united.connector.schema_revision, columns = united.connector.fields.len(), "schema grew");
                *entry = united;
                return Ok(of_rows);
            }
        }
    }
}

impl EvolvedSchemas {
    /// Rows that were decoded by one schema go on by the one that it grew to.
    pub(super) fn grow(
        &self,
        schema: &CurrentSchema,
        grown: Arc<Connector>,
        rows: &mut Transformed,
    ) -> Result<CurrentSchema, Fault> {
        let grown = self.learn(schema, grown).map_err(|error| unusable(&error))?;
        widen_rows(&schema.connector, &grown.connector, rows)?;
        Ok(grown)
    }

    /// Takes note of what the catalog knows: what other processes, and this one before it started, learnt.
    pub(super) fn remember(&self, connector: &str, fields: &serde_json::Value) -> Result<(), TransformError> {
        let known = self.current(connector);
        let grown = known.connector.evolved(&seen_from_json(fields));
        self.learn(&known, Arc::new(grown)).map(|_| ())
    }
}

/// Rows of one connector, each origin by the schema it was decoded by.
#[derive(Debug, Default)]
pub(super) struct EvolvedRows(Vec<(Arc<Connector>, OriginRows)>);

impl EvolvedRows {
    /// Rows behind the connector's SQL, where it has any.
    pub(super) fn push(&mut self, connector: &Arc<Connector>, rows: OriginRows) {
        self.0.push((Arc::clone(connector.dataset()), rows));
    }

    /// All rows by the union of their schemas, which comes with them; `None` where there are no origins.
    pub(super) fn united(self) -> Result<Option<(Arc<Connector>, Vec<OriginRows>)>, EvolutionError> {
        let Some((first, _)) = self.0.first() else { return Ok(None) };
        let mut union = Arc::clone(first);
        for (connector, _) in &self.0 {
            if connector.schema_revision != union.schema_revision {
                union = Arc::new(union.united(connector));
            }
        }
        let mut all = Vec::with_capacity(self.0.len());
        for (connector, mut rows) in self.0 {
            if connector.schema_revision != union.schema_revision {
                let widened = rows.batches.iter().map(|batch| widen(&connector, &union, batch));
                rows.batches = widened.collect::<Result<_, _>>()?;
            }
            all.push(rows);
        }
        Ok(Some((union, all)))
    }
}

/// Rows of one schema as rows of a wider one.
fn widen(from: &Connector, to: &Connector, rows: &RecordBatch) -> Result<RecordBatch, EvolutionError> {
    let schema = to.decoded_schema();
    let columns = schema.fields().iter().map(|field| {
        let name = field.name();
        let Some(array) = rows.column_by_name(name) else {
            return Ok(new_null_array(field.data_type(), rows.num_rows()));
        };
        match (from.field(name), to.field(name)) {
            (Some(narrow), Some(wide)) if narrow.data_type != wide.data_type => {
                widen_column(array, narrow.data_type, wide.data_type)
                    .map_err(|source| EvolutionError { column: name.clone(), source })
            }
            _ => Ok(Arc::clone(array)),
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema, columns).map_err(|source| EvolutionError { column: to.name.clone(), source })
}

/// The same for all that is left of some rows.
pub(super) fn widen_rows(from: &Arc<Connector>, to: &Arc<Connector>, rows: &mut Transformed) -> Result<(), Fault> {
    if !Arc::ptr_eq(from, to) {
        let widened = rows.batches.iter().map(|batch| widen(from, to, batch));
        rows.batches = widened.collect::<Result<_, _>>().map_err(|error| unusable(&error))?;
    }
    Ok(())
}

fn widen_column(array: &ArrayRef, from: FieldType, to: FieldType) -> Result<ArrayRef, ArrowError> {
    if (from, to) == (FieldType::Json, FieldType::Utf8) {
        return Ok(Arc::new(array.as_string::<i32>().iter().map(|json| json.map(json_text)).collect::<StringArray>()));
    }
    widen_array(array, &arrow_type(to))
}

/// A column as it would be, had it been read by the wider type; an error where a value does not fit.
pub(super) fn widen_array(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    match (array.data_type(), to) {
        (DataType::Decimal128(_, scale), DataType::Utf8 | DataType::Float64) => {
            let values = array.as_primitive::<Decimal128Type>();
            let texts = values.iter().map(|value| value.map(|value| plain_decimal(value, *scale)));
            if *to == DataType::Utf8 {
                return Ok(Arc::new(texts.collect::<StringArray>()));
            }
            // by its digits, as a double is read from text: a division would round twice
            let doubles = texts.map(|text| text.and_then(|text| text.parse::<f64>().ok()));
            Ok(Arc::new(doubles.collect::<Float64Array>()))
        }
        // as a reader of numbers spells them, without the point of a whole one
        (DataType::Float64, DataType::Utf8) => {
            let values = array.as_primitive::<Float64Type>();
            let text = |value: f64| {
                let text =
                    serde_json::Number::from_f64(value).map_or_else(|| value.to_string(), |number| number.to_string());
                String::from_utf8_lossy(&plain_number(text.as_bytes())).into_owned()
            };
            Ok(Arc::new(values.iter().map(|value| value.map(text)).collect::<StringArray>()))
        }
        _ => cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() }),
    }
}

/// A JSON string is its text, anything else stands as it is.
fn json_text(json: &str) -> String {
    serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned())
}

#[cfg(test)]
#[path = "evolution_tests.rs"]
mod tests;
