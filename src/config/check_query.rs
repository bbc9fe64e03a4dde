//! `transform` of a raw connector → the dataset that its SQL makes.

use std::path::PathBuf;
use std::sync::Arc;

use super::check_columns::{Columns, check_name};
use super::check_connector::Report;
use super::error::{ConfigError, Place};
use super::expression::place_inside;
use super::query::{Output, QueryError, output_of, plan_query};
use super::raw_connector::{RawConnector, RawTransform};
use super::yaml::Step::{Index, Key};
use super::{Connector, Evolution, JoinTable, NewField, TypeChange, revision};

const AT: [super::yaml::Step<'static>; 2] = [Key("transform"), Key("sql")];

/// The connector with the columns of its SQL, before the rest of it is checked; `None` where they cannot be told.
pub(super) fn dataset(
    raw: &RawConnector,
    sql: &Sql,
    tables: &[Arc<JoinTable>],
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
    let planned = plan_query(connector, &sql.text, tables);
    let Output { fields, rescues } = match planned.and_then(|plan| output_of(connector, &plan, &not_null)) {
        Ok(output) => output,
        Err(error) => {
            sql.tell(error, report);
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
        for column in step.columns().filter(|column| step.kind() == "dedupe" && made.find(column).is_none()) {
            let help = "rows are deduped behind the SQL: let it make the column too".to_owned();
            report.add(&[Key("clean"), Index(index)], format!("the SQL makes no column `{column}`"), help);
        }
    }
    let new_field = if rescues { NewField::Rescue } else { NewField::default() };
    let evolution = Evolution { new_field, ..Evolution::default() };
    let mut dataset = Connector { fields, evolution, ..connector.clone() };
    dataset.clean.retain(|step| step.kind() == "dedupe");
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

/// The text of a transform.
pub(super) struct Sql {
    pub(super) text: String,
    /// The file that it stands in, where that is not the connector's.
    file: Option<PathBuf>,
}

impl Sql {
    /// What stands in the connector, or in the file beside it that it names; `None` where that cannot be read.
    pub(super) fn read(transform: &RawTransform, report: &mut Report<'_>) -> Option<Self> {
        let name = transform.sql.trim();
        let is_file = std::path::Path::new(name).extension().is_some_and(|extension| extension == "sql");
        if !is_file || name.contains(char::is_whitespace) {
            return Some(Self { text: transform.sql.clone(), file: None });
        }
        if name.contains(['/', '\\']) {
            let help = "it lies beside the connector: give its name alone".to_owned();
            report.add(&AT, format!("`{name}` is no name of a file"), help);
            return None;
        }
        let path = report.file.with_file_name(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(Self { text, file: Some(path) }),
            Err(error) => {
                let help = "a file beside the connector, or the SQL itself".to_owned();
                report.add(&AT, format!("`{name}` cannot be read: {error}"), help);
                None
            }
        }
    }

    fn tell(&self, error: QueryError, report: &mut Report<'_>) {
        let QueryError { line, column, message, help } = error;
        let place = match &self.file {
            None => place_inside(report.root.find(&AT), line, column).place(report.file),
            Some(path) => Place::File { path: path.clone(), line: line.max(1) as u32, column: column.max(1) as u32 },
        };
        report.problems.push(ConfigError::Invalid { place, message, help });
    }
}
