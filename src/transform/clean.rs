//! The clean steps, column by column, in the order in which they stand.
//!
//! # Contract
//! A step that changes nothing copies nothing. Each counts the values that it changed. A value that a step cannot take
//! makes its row a reject (`invalid_value`) with the bytes as they were read, and later steps do not see it; so does a null
//! that cleaning leaves in a required column (`missing_required`). Details name columns and steps, never values.

mod clamp;
mod text;
mod units;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Scalar, StringArray};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use chrono::DateTime;

use super::TransformError;
use super::sieve::Sieve;
use crate::config::{CleanStep, Connector, Field, FieldType, arrow_type};
use crate::types::{RejectReason, RowReject};

use clamp::Bounds;
use text::TextStep;
use units::UnitParser;

#[derive(Debug)]
enum Action {
    Text(TextStep),
    /// One value of the column's type.
    Default(ArrayRef),
    Clamp(Bounds),
    /// Of the column of that index.
    ParseUnits(usize, UnitParser),
}

/// One step at one column.
#[derive(Debug)]
struct Step {
    kind: &'static str,
    column: usize,
    action: Action,
}

/// Steps with the columns they change, in order.
#[derive(Debug)]
pub(super) struct Cleaning {
    steps: Vec<Step>,
    /// Required columns that a step may leave null.
    required: Vec<usize>,
}

/// What a step did to a column.
struct Applied {
    /// `None`: it stays as it is.
    column: Option<ArrayRef>,
    changed: u64,
    /// Rows that it cannot take, ascending.
    failed: Vec<usize>,
}

impl Applied {
    const NOTHING: Self = Self { column: None, changed: 0, failed: Vec::new() };

    fn to(column: ArrayRef, changed: u64) -> Self {
        Self { column: Some(column), changed, failed: Vec::new() }
    }
}

/// How many values each kind of step has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes(Vec<(&'static str, u64)>);

impl Changes {
    fn add(&mut self, step: &'static str, count: u64) {
        match self.0.iter_mut().find(|(found, _)| *found == step) {
            _ if count == 0 => {}
            Some((_, counted)) => *counted += count,
            None => self.0.push((step, count)),
        }
    }

    /// Adds what was counted elsewhere.
    pub fn append(&mut self, next: &Self) {
        next.iter().for_each(|(step, count)| self.add(step, count));
    }

    /// Steps that changed anything, by the key that they have in the YAML.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().copied()
    }
}

impl Cleaning {
    pub(super) fn new(connector: &Connector) -> Result<Self, TransformError> {
        let mut planner = Planner { connector, steps: Vec::new() };
        for step in &connector.clean {
            planner.plan(step)?;
        }
        let steps = planner.steps;
        let may_be_null = |index: usize| steps.iter().any(|step| step.column == index && step.action.makes_nulls());
        let required =
            connector.fields.iter().enumerate().filter(|(index, field)| field.required && may_be_null(*index));
        let required = required.map(|(index, _)| index).collect();
        Ok(Self { steps, required })
    }

    /// Takes rows that a step cannot take out, and adds their rejects.
    pub(super) fn apply(
        &self,
        connector: &Connector,
        sieve: &mut Sieve<'_>,
        changes: &mut Changes,
        rejects: &mut Vec<RowReject>,
    ) -> Result<(), TransformError> {
        let failed = |source| TransformError::Clean { connector: connector.name.clone(), source };
        let name = |index: usize| &connector.fields[index].name;
        let mut take_out = |sieve: &mut Sieve<'_>, rows: &[usize], reason, detail: &dyn Fn() -> String| {
            if rows.is_empty() {
                return Ok(());
            }
            let mut stays = vec![true; sieve.columns[0].len()];
            for row in rows {
                stays[*row] = false;
                rejects.push(sieve.reject(*row, reason, detail()));
            }
            sieve.keep(&stays.into())
        };
        for step in &self.steps {
            let applied = step.action.apply(&sieve.columns, step.column).map_err(failed)?;
            changes.add(step.kind, applied.changed);
            if let Some(column) = applied.column {
                sieve.columns[step.column] = column;
            }
            let detail =
                || format!("clean step `{}` of column `{}`: {}", step.kind, name(step.column), step.action.misfit());
            take_out(sieve, &applied.failed, RejectReason::InvalidValue, &detail).map_err(failed)?;
        }
        for index in &self.required {
            let column = &sieve.columns[*index];
            let nulls: Vec<usize> = (0..column.len()).filter(|row| column.is_null(*row)).collect();
            let detail = || format!("column `{}` is required, and cleaning left it null", name(*index));
            take_out(sieve, &nulls, RejectReason::MissingRequired, &detail).map_err(failed)?;
        }
        Ok(())
    }
}

impl Action {
    fn apply(&self, columns: &[ArrayRef], index: usize) -> Result<Applied, ArrowError> {
        let column = &columns[index];
        match self {
            Self::Text(step) => step.apply(texts(column)?),
            Self::Default(value) => with_default(column, value),
            Self::Clamp(bounds) => bounds.apply(column),
            Self::ParseUnits(from, parser) => parser.apply(texts(&columns[*from])?, column),
        }
    }

    fn makes_nulls(&self) -> bool {
        matches!(self, Self::Text(step) if step.makes_nulls())
    }

    /// Why it cannot take a value.
    fn misfit(&self) -> String {
        match self {
            Self::ParseUnits(_, parser) => parser.misfit(),
            _ => "the value is not listed".to_owned(),
        }
    }
}

/// From steps as the connector lists them to steps at columns.
struct Planner<'a> {
    connector: &'a Connector,
    steps: Vec<Step>,
}

impl Planner<'_> {
    fn plan(&mut self, step: &CleanStep) -> Result<(), TransformError> {
        let kind = step.kind();
        match step {
            CleanStep::Trim(names) => self.text(kind, names, &TextStep::Trim),
            CleanStep::Lowercase(names) => self.text(kind, names, &TextStep::Lowercase),
            CleanStep::Uppercase(names) => self.text(kind, names, &TextStep::Uppercase),
            CleanStep::Nulls { columns, values } => self.text(kind, columns, &TextStep::nulls(values)),
            CleanStep::Replace { columns, pattern, with } => {
                let step = TextStep::replace(pattern, with).map_err(|source| TransformError::Pattern {
                    connector: self.connector.name.clone(),
                    source: Box::new(source),
                })?;
                self.text(kind, columns, &step)
            }
            CleanStep::Map { columns, values, otherwise } => {
                self.text(kind, columns, &TextStep::map(values, *otherwise))
            }
            CleanStep::Mask { columns, mask } => self.text(kind, columns, &TextStep::Mask(mask.clone())),
            CleanStep::Hash { columns, key } => {
                let hasher = key.hasher().ok_or_else(|| TransformError::NoKey {
                    connector: self.connector.name.clone(),
                    key: key.name.clone(),
                })?;
                self.text(kind, columns, &TextStep::hash(hasher))
            }
            CleanStep::Default(values) => {
                for (name, text) in values {
                    let (column, value) = (self.column(name)?, self.value(name, text)?);
                    self.steps.push(Step { kind, column, action: Action::Default(value) });
                }
                Ok(())
            }
            CleanStep::Clamp(bounds) => {
                for clamp in bounds {
                    let value =
                        |text: &Option<String>| text.as_ref().map(|text| self.value(&clamp.column, text)).transpose();
                    let bounds = Bounds { min: value(&clamp.min)?, max: value(&clamp.max)? };
                    let column = self.column(&clamp.column)?;
                    self.steps.push(Step { kind, column, action: Action::Clamp(bounds) });
                }
                Ok(())
            }
            CleanStep::ParseUnits { from, to, unit } => {
                let column = self.column(to)?;
                let parser = UnitParser::new(*unit, self.connector.fields[column].data_type);
                self.steps.push(Step { kind, column, action: Action::ParseUnits(self.column(from)?, parser) });
                Ok(())
            }
            // Across rows: `super::dedupe`.
            CleanStep::Dedupe(_) | CleanStep::DedupeWithin(_) => Ok(()),
        }
    }

    fn text(&mut self, kind: &'static str, names: &[String], step: &TextStep) -> Result<(), TransformError> {
        for name in names {
            let column = self.column(name)?;
            self.steps.push(Step { kind, column, action: Action::Text(step.clone()) });
        }
        Ok(())
    }

    fn column(&self, name: &str) -> Result<usize, TransformError> {
        self.connector.fields.iter().position(|field| field.name == name).ok_or_else(|| TransformError::UnknownColumn {
            connector: self.connector.name.clone(),
            column: name.to_owned(),
        })
    }

    fn value(&self, name: &str, text: &str) -> Result<ArrayRef, TransformError> {
        let field = &self.connector.fields[self.column(name)?];
        one_value(field, text).map_err(|source| TransformError::Value {
            connector: self.connector.name.clone(),
            column: name.to_owned(),
            source,
        })
    }
}

fn texts(column: &ArrayRef) -> Result<&StringArray, ArrowError> {
    column.as_string_opt().ok_or_else(|| ArrowError::CastError(format!("{} is no text to clean", column.data_type())))
}

fn with_default(column: &ArrayRef, value: &ArrayRef) -> Result<Applied, ArrowError> {
    let is_missing: BooleanArray = match column.as_string_opt::<i32>() {
        Some(texts) if texts.offsets().windows(2).all(|ends| ends[0] < ends[1]) => return Ok(Applied::NOTHING),
        Some(texts) => texts.iter().map(|text| Some(text.is_none_or(str::is_empty))).collect(),
        None if column.null_count() == 0 => return Ok(Applied::NOTHING),
        None => (0..column.len()).map(|row| Some(column.is_null(row))).collect(),
    };
    if is_missing.true_count() == 0 {
        return Ok(Applied::NOTHING);
    }
    Ok(Applied::to(zip(&is_missing, &Scalar::new(value), column)?, is_missing.true_count() as u64))
}

/// One value, from the text of a validated connector.
fn one_value(field: &Field, text: &str) -> Result<ArrayRef, ArrowError> {
    let text = match field.data_type {
        FieldType::TimestampMs => match DateTime::parse_from_rfc3339(text) {
            Ok(time) => time.timestamp_millis().to_string(),
            Err(_) => text.to_owned(),
        },
        FieldType::Uuid => text.to_lowercase(),
        _ => text.to_owned(),
    };
    let texts: ArrayRef = Arc::new(StringArray::from(vec![text]));
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let target = arrow_type(field.data_type);
    match target {
        DataType::Timestamp(..) => {
            let milliseconds = cast_with_options(&texts, &DataType::Int64, &strict)?;
            cast_with_options(&milliseconds, &target, &strict)
        }
        _ => cast_with_options(&texts, &target, &strict),
    }
}
