//! `transform` of a raw connector → the dataset that its SQL makes.

use super::check_columns::{Columns, check_name};
use super::check_connector::Report;
use super::error::ConfigError;
use super::expression::place_inside;
use super::query::{QueryError, output_fields, plan_query};
use super::raw_connector::{RawConnector, RawTransform};
use super::yaml::Step::{Index, Key};
use super::{CleanStep, Connector, Evolution, NewField, TypeChange, revision};

const AT: [super::yaml::Step<'static>; 2] = [Key("transform"), Key("sql")];

/// The connector with the columns of its SQL, before the rest of it is checked; `None` where they cannot be told.
pub(super) fn dataset(
    raw: &RawConnector,
    transform: &RawTransform,
    connector: &Connector,
    report: &mut Report<'_>,
) -> Option<Connector> {
    if connector.evolution.new_field == NewField::Evolve || connector.evolution.type_change == TypeChange::Evolve {
        let help = "`rescue` keeps what the schema lacks; SQL reads it as `_rescued`".to_owned();
        report.add(&[Key("evolution")], "columns of SQL do not grow with the data: `evolve` cannot be had here", help);
        return None;
    }
    let key = raw.warehouse.iter().flat_map(|warehouse| &warehouse.key);
    let not_null: Vec<&str> = key.chain([&raw.staging.time]).map(String::as_str).collect();
    let fields = match plan_query(connector, &transform.sql).and_then(|plan| output_fields(&plan, &not_null)) {
        Ok(fields) => fields,
        Err(error) => {
            tell(error, report);
            return None;
        }
    };
    for (index, field) in fields.iter().enumerate() {
        check_name(&field.name, &AT, report);
        if fields[..index].iter().any(|earlier| earlier.name == field.name) {
            let help = "give one of them another name: `… AS other`".to_owned();
            report.add(&AT, format!("the SQL makes two columns `{}`", field.name), help);
        }
    }
    let made = Columns::of_fields(&fields);
    for (index, step) in connector.clean.iter().enumerate() {
        let CleanStep::Dedupe(columns) = step else { continue };
        for column in columns.iter().filter(|column| made.find(column).is_none()) {
            let help = "rows are deduped behind the SQL: let it make the column too".to_owned();
            report.add(&[Key("clean"), Index(index)], format!("the SQL makes no column `{column}`"), help);
        }
    }
    let mut dataset = Connector { fields, evolution: Evolution::default(), ..connector.clone() };
    dataset.clean.retain(|step| matches!(step, CleanStep::Dedupe(_)));
    dataset.schema_revision = revision::of_schema(&dataset);
    Some(dataset)
}

/// With what was checked since.
pub(super) fn complete(dataset: Connector, connector: &Connector) -> Connector {
    Connector {
        revision: connector.revision.clone(),
        expectations: connector.expectations.clone(),
        staging: connector.staging.clone(),
        warehouse: connector.warehouse.clone(),
        ..dataset
    }
}

fn tell(error: QueryError, report: &mut Report<'_>) {
    let QueryError { line, column, message, help } = error;
    let place = place_inside(report.root.find(&AT), line, column).place(report.file);
    report.problems.push(ConfigError::Invalid { place, message, help });
}
