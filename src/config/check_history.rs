//! `load.track_history` of a raw connector → the columns of its dimension whose earlier values are kept.

use super::check_columns::Columns;
use super::check_connector::Report;
use super::yaml::Step::{Index, Key};
use super::{Warehouse, WarehouseTable};

/// What a row of a history tells besides the tracked columns.
const TIMES: [&str; 2] = ["valid_from", "valid_to"];

/// Sorted: whatever their order, the history is the same.
pub(super) fn history(
    raw: &[String],
    warehouse: Option<&Warehouse>,
    columns: &Columns,
    report: &mut Report<'_>,
) -> Vec<String> {
    if raw.is_empty() {
        return Vec::new();
    }
    let at = [Key("load"), Key("track_history")];
    let Some(warehouse) = warehouse.filter(|warehouse| matches!(warehouse.target, WarehouseTable::Dimension(_))) else {
        let help = "facts are versions already, each of its own time; write `warehouse: {dimension: dim_…, key: […]}`";
        report.add_at_key(&at, "only a dimension has a history", help.to_owned());
        return Vec::new();
    };
    for (index, column) in raw.iter().enumerate() {
        let at = [at[0], at[1], Index(index)];
        if !columns.check_one(column, &at, None, "", report) {
            continue;
        }
        if raw[..index].contains(column) {
            report.add(&at, format!("`{column}` stands twice in `load.track_history`"), None);
        } else if warehouse.key.contains(column) {
            let help = "it names the member, whatever else changes".to_owned();
            report.add(&at, format!("`{column}` is the key and never changes"), help);
        } else if TIMES.contains(&column.as_str()) {
            let help = format!("a history has the columns {} besides", TIMES.join(" and "));
            report.add(&at, format!("`{column}` is a column of the history already"), help);
        }
    }
    let mut tracked = raw.to_vec();
    tracked.sort();
    tracked
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
