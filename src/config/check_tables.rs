//! `transform.tables` of a raw connector → the tables that its SQL joins, those of files with their rows.

use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::check_columns::{parse_type, type_name};
use super::check_connector::{Report, is_name};
use super::error::{ConfigError, Place, did_you_mean, nearest};
use super::quantity;
use super::raw_connector::{RawTable, RawTransform};
use super::table_file;
use super::yaml::Step;
use super::yaml::Step::{Index, Key};
use super::{Connector, Field, HISTORY_SUFFIX, JoinSource, JoinTable, WarehouseTable, member_key};

const REFRESH_DEFAULT: Duration = Duration::from_mins(5);
/// Every process reads the whole table so often.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// In the order of their names; `None` where there is a problem with any.
pub(super) fn tables(raw: &RawTransform, report: &mut Report<'_>) -> Option<Vec<Arc<JoinTable>>> {
    let problems = report.problems.len();
    let tables = raw.tables.iter().filter_map(|(name, raw)| table(name, raw, report).map(Arc::new));
    let tables = tables.collect();
    (report.problems.len() == problems).then_some(tables)
}

fn table(name: &str, raw: &RawTable, report: &mut Report<'_>) -> Option<JoinTable> {
    let way = [Key("transform"), Key("tables"), Key(name)];
    let at = |key| [Key("transform"), Key("tables"), Key(name), Key(key)];
    if !is_name(name, &['_']) || name == "input" {
        let help =
            "lower-case letters, digits and underscores, beginning with a letter; `input` are the rows themselves";
        report.add_at_key(&way, format!("`{name}` cannot be a table's name"), help.to_owned());
        return None;
    }
    let columns = columns(name, raw, report)?;
    match (&raw.file, &raw.dimension) {
        (Some(file), None) => {
            if raw.refresh.is_some() {
                let help = "its rows are read with the connector, and belong to its revision".to_owned();
                report.add_at_key(&at("refresh"), "`refresh` means nothing for a file", help);
                return None;
            }
            of_file(name, file, columns, report)
        }
        (None, Some(dimension)) => of_dimension(name, dimension, raw, columns, report),
        (file, _) => {
            let found = if file.is_some() { "both" } else { "neither" };
            let help = "write `file: NAME.csv` or `dimension: NAME`".to_owned();
            report.add_at_key(&way, format!("table `{name}` names {found} of `file` and `dimension`"), help);
            None
        }
    }
}

fn columns(name: &str, raw: &RawTable, report: &mut Report<'_>) -> Option<Vec<Field>> {
    let problems = report.problems.len();
    let mut columns: Vec<Field> = Vec::with_capacity(raw.columns.len());
    for (index, column) in raw.columns.iter().enumerate() {
        let at = |key| [Key("transform"), Key("tables"), Key(name), Key("columns"), Index(index), Key(key)];
        if columns.iter().any(|earlier| earlier.name == column.name) {
            report.add(&at("name"), format!("there are two columns `{}`", column.name), None);
        }
        match parse_type(&column.data_type) {
            Ok(data_type) => columns.push(table_file::column(&column.name, data_type)),
            Err((message, help)) => report.add(&at("type"), message, help),
        }
    }
    (report.problems.len() == problems).then_some(columns)
}

fn of_file(name: &str, file: &str, columns: Vec<Field>, report: &mut Report<'_>) -> Option<JoinTable> {
    let at = [Key("transform"), Key("tables"), Key(name), Key("file")];
    let is_below = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    if file.is_empty() || !is_below {
        let help = "it lies beside the connector or below its folder: `rates.csv`, `tables/rates.csv`".to_owned();
        report.add(&at, format!("`{file}` is no name of a file"), help);
        return None;
    }
    let path = report.file.with_file_name(file);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let help = "a file beside the connector".to_owned();
            report.add(&at, format!("`{file}` cannot be read: {error}"), help);
            return None;
        }
    };
    let hash = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    match table_file::read(name, &path, &bytes, columns, hash) {
        Ok(table) => Some(table),
        Err(problem) => {
            let place = Place::File { path, line: problem.line, column: problem.line.min(1) };
            let (message, help) = (problem.message, problem.help);
            report.problems.push(ConfigError::Invalid { place, message, help });
            None
        }
    }
}

fn of_dimension(
    name: &str,
    dimension: &str,
    raw: &RawTable,
    columns: Vec<Field>,
    report: &mut Report<'_>,
) -> Option<JoinTable> {
    let at = |key| [Key("transform"), Key("tables"), Key(name), Key(key)];
    let problems = report.problems.len();
    if !is_name(dimension, &['_']) || dimension.starts_with("dim_") {
        let help = "the name of its table without `dim_`: `products` for `dim_products`".to_owned();
        report.add(&at("dimension"), format!("`{dimension}` is no dimension's name"), help);
    }
    if columns.is_empty() {
        let help = "those that the SQL reads: `columns: [{name: product_id, type: utf8}]`".to_owned();
        let way = &at("columns")[..3];
        report.add_at_key(way, format!("nothing says which columns of dimension `{dimension}` to take"), help);
    }
    let refresh = match raw.refresh.as_deref().map(quantity::parse_duration) {
        None => REFRESH_DEFAULT,
        Some(Ok(refresh)) if refresh >= REFRESH_MIN => refresh,
        Some(given) => {
            let help = given.err().unwrap_or_else(|| "at least 1s: each process reads the whole table".to_owned());
            report.add(&at("refresh"), "`refresh` is no interval to read a table at", help);
            REFRESH_DEFAULT
        }
    };
    let table = JoinTable::of_dimension(name.to_owned(), columns, dimension.to_owned(), refresh);
    (report.problems.len() == problems).then_some(table)
}

/// A dimension may be filled by someone else, and has columns of its own; what is nearly the name of a dimension or a column
/// that connectors fill is a slip.
pub(super) fn check_dimensions<'a>(
    connector: &Connector,
    all: impl Iterator<Item = &'a Connector> + Clone,
    report: &mut Report<'_>,
) {
    for table in connector.joined_dimensions() {
        let JoinSource::Dimension { dimension, .. } = &table.source else { continue };
        let filled = all.clone().filter_map(|other| match &other.warehouse.as_ref()?.target {
            WarehouseTable::Dimension(table) => Some((table.strip_prefix("dim_")?, other)),
            WarehouseTable::Fact(_) => None,
        });
        let filled: Vec<(&str, &Connector)> = filled.collect();
        // the loader makes it of what its connector tracks
        let is_history = |(name, other): &(&str, &Connector)| {
            let tracks = other.warehouse.as_ref().is_some_and(|warehouse| !warehouse.history.is_empty());
            tracks && dimension.strip_suffix(HISTORY_SUFFIX) == Some(*name)
        };
        if filled.iter().any(is_history) {
            continue;
        }
        let way: [Step<'_>; 4] = [Key("transform"), Key("tables"), Key(&table.name), Key("dimension")];
        let names = || filled.iter().map(|(name, _)| *name);
        if !names().any(|name| name == dimension) {
            if nearest(dimension, names()).is_some() {
                let help = did_you_mean(dimension, "dimensions", names());
                report.add(&way, format!("no connector fills dimension `{dimension}`"), help);
            }
            continue;
        }
        for (_, other) in filled.iter().filter(|(name, _)| name == dimension) {
            let fields = other.transform.as_ref().map_or(&other.fields, |transform| &transform.dataset.fields);
            // its own key is nobody's to fill
            let columns: Vec<(usize, &Field)> =
                table.columns.iter().enumerate().filter(|(_, column)| column.name != member_key(dimension)).collect();
            check_filled(&table.name, &columns, fields, report);
        }
    }
}

/// `columns`: with their places in the table.
fn check_filled(table: &str, columns: &[(usize, &Field)], filled: &[Field], report: &mut Report<'_>) {
    for (index, column) in columns {
        let at = |key| [Key("transform"), Key("tables"), Key(table), Key("columns"), Index(*index), Key(key)];
        let names = || filled.iter().map(|field| field.name.as_str());
        match filled.iter().find(|field| field.name == column.name) {
            Some(field) if field.data_type.join(column.data_type) != column.data_type => {
                let message = format!(
                    "column `{}` is {}, but the dimension is filled with {}",
                    column.name,
                    type_name(column.data_type),
                    type_name(field.data_type)
                );
                report.add(&at("type"), message, format!("write `type: {}`", type_name(field.data_type)));
            }
            None if nearest(&column.name, names()).is_some() => {
                let help = did_you_mean(&column.name, "columns", names());
                report.add(&at("name"), format!("no connector fills column `{}` of the dimension", column.name), help);
            }
            _ => {}
        }
    }
}
