//! The statements that make and keep rollups: pure text, every identifier quoted.
//!
//! A cell is (hour or day, group). A null makes a group too, so that cells are compared with a value in its place ([`same_cell`]),
//! which, unlike IS NOT DISTINCT FROM, the server can hash.

use super::merge_sql::{quoted, table_name};
use super::rollups::{GroupColumn, Rollup};

/// Of a text that rows are grouped by; an index takes some 2,700 bytes. [`super::touched`] cuts alike.
pub(super) const GROUP_CHARS_MAX: usize = 64;

/// The cells that a transaction touches; gone with it.
pub(super) fn create_cells(rollup: &Rollup, number: usize) -> String {
    let cells = cells_name(number);
    format!(
        "CREATE TEMPORARY TABLE {0} ON COMMIT DROP AS SELECT {columns} FROM {1} WITH NO DATA;\n\
         ALTER TABLE pg_temp.{0} ADD UNIQUE NULLS NOT DISTINCT ({columns})",
        cells,
        table_name(&rollup.name),
        columns = key(rollup, ""),
    )
}

/// The cells given: the beginning of each, and an array of texts for each column of the group.
pub(super) fn touch_values(rollup: &Rollup, number: usize) -> String {
    let arrays: Vec<String> = (0..rollup.group.len()).map(|n| format!(", ${}::text[]", n + 2)).collect();
    let names: Vec<String> = (0..rollup.group.len()).map(|n| format!(", k{n}")).collect();
    let values: Vec<String> =
        rollup.group.iter().enumerate().map(|(n, column)| format!(", k.k{n}::{}", column.type_name)).collect();
    format!(
        "INSERT INTO pg_temp.{} SELECT k.b{} FROM unnest($1::timestamptz[]{}) AS k (b{}) ON CONFLICT DO NOTHING",
        cells_name(number),
        values.concat(),
        arrays.concat(),
        names.concat(),
    )
}

/// The cells of the rows `f` of `from`: a table's name and alias, or a join.
pub(super) fn touch_rows(rollup: &Rollup, number: usize, from: &str) -> String {
    format!(
        "INSERT INTO pg_temp.{} SELECT DISTINCT {} FROM {from} ON CONFLICT DO NOTHING",
        cells_name(number),
        cell_values(rollup)
    )
}

/// Locks the touched cells, in order, and makes those that are not there. The row that nobody changes is locked all the same; one that is
/// deleted meanwhile is made again.
pub(super) fn lock_cells(rollup: &Rollup, number: usize) -> String {
    let columns = key(rollup, "");
    format!(
        "INSERT INTO {} AS r ({columns}) SELECT {columns} FROM pg_temp.{} ORDER BY {columns}\n\
         ON CONFLICT ({columns}) DO UPDATE SET row_count = r.row_count WHERE false",
        table_name(&rollup.name),
        cells_name(number),
    )
}

/// For tests of what locks cells.
pub(super) fn make_cells(rollup: &Rollup, number: usize) -> String {
    let columns = key(rollup, "");
    format!(
        "INSERT INTO {} ({columns}) SELECT {columns} FROM pg_temp.{} ON CONFLICT DO NOTHING",
        table_name(&rollup.name),
        cells_name(number),
    )
}

/// The touched hours or days, in order.
pub(super) fn touched_times(rollup: &Rollup, number: usize) -> String {
    format!("SELECT DISTINCT {0} FROM pg_temp.{1} ORDER BY {0}", quoted(rollup.grain.as_str()), cells_name(number))
}

/// Brings the touched cells between `$1` and `$2` to what the fact's rows make of them; those without a row go.
pub(super) fn recompute(rollup: &Rollup, number: usize) -> String {
    let (fact, table, cells) = (table_name(&rollup.fact), table_name(&rollup.name), cells_name(number));
    let (time, cell) = (quoted(&rollup.time), quoted(rollup.grain.as_str()));
    let values = value_names(rollup);
    let assigned: Vec<String> = values.iter().map(|name| format!("{name} = n.{name}")).collect();
    let listed = |alias: &str| values.iter().map(|name| format!("{alias}.{name}")).collect::<Vec<_>>().join(", ");
    let groups: Vec<String> = rollup.group.iter().map(|column| same_group(&group_value(column), "c", column)).collect();
    let groups: Vec<String> = groups.into_iter().map(|same| format!(" AND {same}")).collect();
    format!(
        "WITH n AS MATERIALIZED (\n\
         SELECT {c_key}, {aggregates} FROM {fact} f JOIN pg_temp.{cells} c ON c.{cell} = {truncated}{groups}\n\
         WHERE f.{time} >= $1 AND f.{time} < $2 GROUP BY {c_key}),\n\
         gone AS (DELETE FROM {table} r USING pg_temp.{cells} c WHERE {r_range} AND {r_is_c}\n\
         AND NOT EXISTS (SELECT FROM n WHERE {n_is_c}))\n\
         UPDATE {table} r SET {assigned} FROM n WHERE {r_range} AND {r_is_n} AND ({r_values}) IS DISTINCT FROM ({n_values})",
        c_key = key(rollup, "c."),
        aggregates = aggregates(rollup),
        truncated = truncated(rollup),
        groups = groups.concat(),
        r_range = format_args!("r.{cell} >= $1 AND r.{cell} < $2"),
        r_is_c = same_cell(rollup, "r", "c"),
        n_is_c = same_cell(rollup, "n", "c"),
        r_is_n = same_cell(rollup, "r", "n"),
        assigned = assigned.join(", "),
        r_values = listed("r"),
        n_values = listed("n"),
    )
}

/// Makes the table from all rows of the fact, described and indexed.
pub(super) fn build(rollup: &Rollup) -> String {
    let table = table_name(&rollup.name);
    let columns = key(rollup, "");
    let mut sql = format!("DROP TABLE IF EXISTS {table};\n");
    sql.push_str(&format!(
        "CREATE TABLE {table} AS {};\n\
         ALTER TABLE {table} ALTER COLUMN {cell} SET NOT NULL, ALTER COLUMN row_count SET NOT NULL,\n\
         ALTER COLUMN row_count SET DEFAULT 0, ADD CONSTRAINT {unique} UNIQUE NULLS NOT DISTINCT ({columns});\n",
        select_all(rollup),
        cell = quoted(rollup.grain.as_str()),
        unique = quoted(&format!("{}_key", rollup.name)),
    ));
    let grain = rollup.grain.as_str();
    let cell = format!("beginning of the {grain} in which the rows happened, in UTC");
    let mut comments = vec![(grain.to_owned(), cell), ("row_count".to_owned(), "rows of the fact".to_owned())];
    comments.extend(rollup.group.iter().map(|column| {
        let long = if column.is_text() { format!(", its first {GROUP_CHARS_MAX} characters") } else { String::new() };
        (column.name.clone(), format!("{} of the fact{long}", column.name))
    }));
    comments.extend(rollup.aggregates.iter().map(|made| (made.name.clone(), made.declared.clone())));
    for (column, comment) in comments {
        sql.push_str(&format!("COMMENT ON COLUMN {table}.{} IS {};\n", quoted(&column), text(&comment)));
    }
    let comment = format!("{} by {grain}, kept exactly by every load; see warehouse.rollup", rollup.fact);
    sql.push_str(&format!("COMMENT ON TABLE {table} IS {};\n", text(&comment)));
    sql
}

/// Every cell, as the rows of the fact make it.
pub(super) fn select_all(rollup: &Rollup) -> String {
    let places: Vec<String> = (1..=rollup.group.len() + 1).map(|place| place.to_string()).collect();
    format!(
        "SELECT {}, {} FROM {} f GROUP BY {}",
        cell_values(rollup),
        aggregates(rollup),
        table_name(&rollup.fact),
        places.join(", ")
    )
}

/// Cells that are there and should not be so, or the other way round.
pub(super) fn count_differences(rollup: &Rollup) -> String {
    let columns: Vec<String> = std::iter::once(key(rollup, "")).chain(value_names(rollup)).collect();
    let (columns, table, all) = (columns.join(", "), table_name(&rollup.name), select_all(rollup));
    format!(
        "WITH kept AS (SELECT {columns} FROM {table}), should AS ({all})\n\
         SELECT (SELECT count(*) FROM (TABLE kept EXCEPT ALL TABLE should) a) + (SELECT count(*) FROM (TABLE should EXCEPT ALL TABLE kept) b)"
    )
}

pub(super) fn cells_name(number: usize) -> String {
    format!("sluice_cells_{number}")
}

/// Names of the values of a cell.
fn value_names(rollup: &Rollup) -> Vec<String> {
    rollup.aggregates.iter().map(|made| quoted(&made.name)).chain(["row_count".to_owned()]).collect()
}

fn aggregates(rollup: &Rollup) -> String {
    let made = rollup.aggregates.iter().map(|made| format!("{} AS {}", made.sql, quoted(&made.name)));
    made.chain(["count(*) AS row_count".to_owned()]).collect::<Vec<_>>().join(", ")
}

/// What names a cell.
fn key(rollup: &Rollup, prefix: &str) -> String {
    let names = std::iter::once(rollup.grain.as_str()).chain(rollup.group.iter().map(|column| column.name.as_str()));
    names.map(|name| format!("{prefix}{}", quoted(name))).collect::<Vec<_>>().join(", ")
}

/// The cell of a row `f`.
fn cell_values(rollup: &Rollup) -> String {
    let groups = rollup.group.iter().map(|column| format!("{} AS {}", group_value(column), quoted(&column.name)));
    let cell = format!("{} AS {}", truncated(rollup), quoted(rollup.grain.as_str()));
    std::iter::once(cell).chain(groups).collect::<Vec<_>>().join(", ")
}

fn truncated(rollup: &Rollup) -> String {
    format!("date_trunc('{}', f.{}, 'UTC')", rollup.grain.as_str(), quoted(&rollup.time))
}

fn group_value(column: &GroupColumn) -> String {
    let value = format!("f.{}", quoted(&column.name));
    if column.is_text() { format!("left({value}, {GROUP_CHARS_MAX})") } else { value }
}

fn same_cell(rollup: &Rollup, one: &str, other: &str) -> String {
    let cell = quoted(rollup.grain.as_str());
    let groups = rollup.group.iter().map(|column| {
        let value = format!("{one}.{}", quoted(&column.name));
        format!(" AND {}", same_group(&value, other, column))
    });
    format!("{one}.{cell} = {other}.{cell}{}", groups.collect::<String>())
}

fn same_group(value: &str, other: &str, column: &GroupColumn) -> String {
    let (other, nought) = (format!("{other}.{}", quoted(&column.name)), column.nought());
    format!("coalesce({value}, {nought}) = coalesce({other}, {nought}) AND ({value} IS NULL) = ({other} IS NULL)")
}

pub(super) fn text(text: &str) -> String {
    // in either setting of standard_conforming_strings
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
