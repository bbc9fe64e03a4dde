//! `load` of a raw connector → what its warehouse says of rows, rollups and history.

use super::check_columns::Columns;
use super::check_connector::Report;
use super::expression::Expressions;
use super::raw_connector::RawConnector;
use super::raw_load::RawLoad;
use super::yaml::Step::Key;
use super::{Connector, check_history, check_rollups};

/// `dataset`: what SQL makes of the connector, where it has any; `columns`: those that are staged.
pub(super) fn load(
    raw: &RawConnector,
    connector: &mut Connector,
    dataset: Option<&Connector>,
    columns: &Columns,
    expressions: &Expressions,
    report: &mut Report<'_>,
) {
    let Some(load) = &raw.load else { return };
    let rows = rows(load, dataset.unwrap_or(connector), raw.warehouse.is_some(), expressions, report);
    let rollups = check_rollups::rollups(&load.rollups, connector.warehouse.as_ref(), columns, report);
    let history = check_history::history(&load.track_history, connector.warehouse.as_ref(), columns, report);
    if let Some(warehouse) = &mut connector.warehouse {
        (warehouse.rows, warehouse.rollups, warehouse.history) = (rows, rollups, history);
    }
}

/// `None`: all rows are loaded.
fn rows(
    raw: &RawLoad,
    staged: &Connector,
    has_warehouse: bool,
    expressions: &Expressions,
    report: &mut Report<'_>,
) -> Option<String> {
    let at = [Key("load"), Key("rows")];
    let sql = raw.rows.as_deref()?.trim();
    if !has_warehouse {
        let help = "name the table of the rows: `warehouse: {fact: fact_…, key: […]}`".to_owned();
        report.add_at_key(&at, "nothing is loaded without `warehouse`", help);
        return None;
    }
    match sql {
        "all" => None,
        "none" => {
            let help =
                "leave `warehouse` out; rollups are computed from the rows of the fact, which must be there".to_owned();
            report.add(&at, "a connector that loads no rows has no place in the warehouse", help);
            None
        }
        _ => {
            expressions.check(staged, sql, &at, report);
            Some(sql.to_owned())
        }
    }
}
