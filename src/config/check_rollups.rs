//! `load.rollups` of a raw connector → [`Rollup`]s: names that tables can have, groups and aggregates over columns of the fact.

use super::check_columns::{Columns, NAME_BYTES_MAX};
use super::check_connector::{Report, is_name};
use super::connector::DimensionLink;
use super::error::{ConfigError, did_you_mean};
use super::expression::place_inside;
use super::raw_load::{RawRollup, RawRollupGrain};
use super::rollup_sql;
use super::yaml::Step::{self, Index, Key};
use super::{Field, FieldType, Rollup, RollupAggregate, RollupGrain, Warehouse, WarehouseTable};

/// Rows of a cell: every rollup has the column.
const ROW_COUNT: &str = "row_count";
/// What a table's name adds to the rollup's: `rollup_`, and `_key` of its unique key.
const AFFIX_BYTES: usize = 11;

pub(super) fn rollups(
    raw: &[RawRollup],
    warehouse: Option<&Warehouse>,
    columns: &Columns,
    report: &mut Report<'_>,
) -> Vec<Rollup> {
    let at = [Key("load"), Key("rollups")];
    if raw.is_empty() {
        return Vec::new();
    }
    let Some(warehouse) = warehouse.filter(|warehouse| matches!(warehouse.target, WarehouseTable::Fact(_))) else {
        let help = "name the table of the rows: `warehouse: {fact: fact_…, key: […]}`".to_owned();
        report.add_at_key(&at, "only a fact has rollups", help);
        return Vec::new();
    };
    let mut rollups: Vec<Rollup> = Vec::new();
    let mut fields = columns.fields.clone();
    fields.extend(warehouse.dimensions.iter().map(|link| Field {
        name: link.member_key(),
        data_type: FieldType::Int64,
        required: true,
        formats: Vec::new(),
        header: None,
        path: None,
    }));
    for (index, rollup) in raw.iter().enumerate() {
        let at = [at[0], at[1], Index(index)];
        let mut check = Check { at, columns, fields: &fields, warehouse, report };
        let rollup = check.rollup(rollup);
        if rollups.iter().any(|earlier| earlier.name == rollup.name) {
            let at = [at[0], at[1], Index(index), Key("name")];
            report.add(
                &at,
                format!("there are two rollups `{}`", rollup.name),
                "each is a table of its own".to_owned(),
            );
        }
        rollups.push(rollup);
    }
    rollups
}

/// Of one element of `rollups`.
struct Check<'a, 'b> {
    at: [Step<'static>; 3],
    columns: &'a Columns,
    /// Of the fact: the connector's, and keys of members.
    fields: &'a [Field],
    warehouse: &'a Warehouse,
    report: &'a mut Report<'b>,
}

impl Check<'_, '_> {
    fn rollup(&mut self, raw: &RawRollup) -> Rollup {
        let [load, rollups, index] = self.at;
        if !is_name(&raw.name, &['_']) || raw.name.len() + AFFIX_BYTES > NAME_BYTES_MAX {
            let help = format!(
                "lower-case letters, digits and underscores, beginning with a letter, at most {}",
                NAME_BYTES_MAX - AFFIX_BYTES
            );
            self.report.add(
                &[load, rollups, index, Key("name")],
                format!("`{}` cannot be a rollup's name", raw.name),
                help,
            );
        }
        let grain = match raw.by {
            RawRollupGrain::Hour => RollupGrain::Hour,
            RawRollupGrain::Day => RollupGrain::Day,
        };
        let mut taken = vec![grain.as_str().to_owned(), ROW_COUNT.to_owned()];
        for (place, column) in raw.group.iter().enumerate() {
            let at = [load, rollups, index, Key("group"), Index(place)];
            self.group_column(column, &at);
            if taken.contains(column) {
                self.report.add(&at, format!("`{column}` stands twice among the columns of the rollup"), None);
            }
            taken.push(column.clone());
        }
        if raw.aggregates.is_empty() {
            let help = format!("such as `aggregates: {{revenue: \"sum(amount)\"}}`; `{ROW_COUNT}` is there always");
            self.report.add_at_key(&[load, rollups, index, Key("aggregates")], "the rollup has no aggregates", help);
        }
        let mut aggregates = Vec::new();
        for (name, sql) in &raw.aggregates {
            let at = [load, rollups, index, Key("aggregates"), Key(name)];
            if !is_name(name, &['_']) || name.len() > NAME_BYTES_MAX {
                let help = "lower-case letters, digits and underscores, beginning with a letter".to_owned();
                self.report.add_at_key(&at, format!("`{name}` cannot be a column's name"), help);
            } else if taken.contains(name) {
                let help = format!("the rollup has the columns {} besides", taken.join(", "));
                self.report.add_at_key(&at, format!("`{name}` is a column of the rollup already"), help);
            }
            aggregates.extend(self.aggregate(name, sql, &at));
        }
        Rollup { name: raw.name.clone(), grain, group: raw.group.clone(), aggregates }
    }

    fn group_column(&mut self, name: &str, at: &[Step<'_>]) {
        let fits = |field: FieldType| {
            matches!(
                field,
                FieldType::Utf8 | FieldType::Uuid | FieldType::Int32 | FieldType::Int64 | FieldType::Boolean
            )
        };
        let keys: Vec<String> = self.warehouse.dimensions.iter().map(DimensionLink::member_key).collect();
        if keys.iter().any(|key| key == name) {
            return;
        }
        if self.columns.find(name).is_none() {
            let known = self.columns.fields.iter().filter(|field| fits(field.data_type));
            let known = known.map(|field| field.name.as_str()).chain(keys.iter().map(String::as_str));
            let help = did_you_mean(name, "columns to group by", known);
            self.report.add(at, format!("there is no column `{name}`"), help);
            return;
        }
        self.columns.check_fitting(name, at, fits, "utf8, uuid, int32, int64 and boolean", self.report);
    }

    fn aggregate(&mut self, name: &str, sql: &str, at: &[Step<'_>]) -> Option<RollupAggregate> {
        match rollup_sql::aggregate(sql, self.fields) {
            Ok((emitted, columns)) => {
                Some(RollupAggregate { name: name.to_owned(), sql: emitted, declared: sql.to_owned(), columns })
            }
            Err(problem) => {
                let node = self.report.root.find(at);
                let place = place_inside(node, problem.line, problem.column).place(self.report.file);
                let (message, help) = (problem.message, problem.help);
                self.report.problems.push(ConfigError::Invalid { place, message, help });
                None
            }
        }
    }
}

#[cfg(test)]
#[path = "rollups_tests.rs"]
mod tests;
