//! The statements of a load, made from a plan: pure text, every identifier quoted.

use std::fmt::Write;

use super::plan::{ByName, LINEAGE_COLUMNS, Link, LoadTable, TableKind, TablePlan};
use super::reconcile_sql::rows_name;
use super::warehouse_table::SCHEMA;

/// The order among rows of one key, all of it from the data: LOAD-2.
pub(super) const ORDER: [&str; 4] = ["_newer_at", "_object_time", "_object_hash", "_row"];

/// The unknown member: natural key of the row with key 0, for facts that name nobody.
const UNKNOWN: &str = "''";

/// The table into which part `number` is copied; gone with the transaction.
pub(super) fn create_temporary(plan: &TablePlan, number: usize) -> String {
    let columns: Vec<String> = plan
        .columns
        .iter()
        .map(|column| format!("{} {}", quoted(&column.name), column.wire.sql()))
        .chain(LINEAGE_COLUMNS.iter().map(|(name, sql)| format!("{} {sql}", quoted(name))))
        .collect();
    format!("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP", temporary_name(number), columns.join(", "))
}

pub(super) fn copy_in(number: usize) -> String {
    format!("COPY pg_temp.{} FROM STDIN (FORMAT binary)", temporary_name(number))
}

/// Takes the rows of the offsets `$1` and records `$2` out of part `number`.
pub(super) fn delete_masked(number: usize) -> String {
    delete_masked_of(&format!("pg_temp.{}", temporary_name(number)))
}

/// The same of any table.
pub(super) fn delete_masked_of(table: &str) -> String {
    format!(
        "DELETE FROM {table} s USING unnest($1::int8[], $2::int4[]) AS m (o, r) WHERE s.\"_offset\" = m.o AND s.\"_record\" = m.r"
    )
}

/// Brings part `number` into the rows of its table: members resolved, the unknown member left out.
pub(super) fn resolve(plan: &TablePlan, table: &LoadTable, number: usize) -> String {
    let targets = targets(plan);
    let values: Vec<&str> = targets.iter().map(|(_, value)| value.as_str()).collect();
    let mut sql = format!(
        "INSERT INTO {} ({})\nSELECT {} FROM pg_temp.{} s\n",
        rows_name(table),
        names(targets.iter().map(|(name, _)| name.as_str())),
        values.join(", "),
        temporary_name(number)
    );
    for (place, link) in plan.links().iter().enumerate() {
        if let Some(by_name) = &link.by_name {
            let _ = writeln!(
                sql,
                "LEFT JOIN {SCHEMA}.resolution_decision r{place} ON r{place}.dimension = '{}' AND r{place}.spelling = s.{}",
                by_name.dimension,
                quoted(&by_name.column),
            );
        }
        let own = link.column.iter().map(|column| format!("s.{}::text", quoted(column)));
        // an empty key is none where a name may tell
        let own = own.map(|own| if link.by_name.is_some() { format!("nullif({own}, {UNKNOWN})") } else { own });
        let decided = link.by_name.iter().map(|_| format!("r{place}.natural_key"));
        let values: Vec<String> = own.chain(decided).chain([UNKNOWN.to_owned()]).collect();
        let _ = writeln!(
            sql,
            "LEFT JOIN {} d{place} ON d{place}.{} = coalesce({})",
            table_name(&link.table),
            quoted(&link.natural_key),
            values.join(", "),
        );
    }
    if plan.kind == TableKind::Dimension {
        // The unknown member is ours: nobody's row may rename it.
        let named: Vec<String> = plan
            .key
            .iter()
            .filter(|name| is_text(plan, name))
            .map(|name| format!("s.{} <> {UNKNOWN}", quoted(name)))
            .collect();
        if !named.is_empty() {
            let _ = writeln!(sql, "WHERE {}", named.join(" OR "));
        }
    }
    sql.truncate(sql.trim_end().len());
    sql
}

/// Of the natural keys `$1`, those that are no members yet.
pub(super) fn missing_members(link: &Link) -> String {
    format!(
        "SELECT k FROM unnest($1::text[]) AS k WHERE NOT EXISTS (SELECT FROM {} d WHERE d.{} = k)",
        table_name(&link.table),
        quoted(&link.natural_key)
    )
}

/// Names and keys of the members among the natural keys `$1`, each of which stands there once. Of very many the server reads the
/// dimension once, where `ANY` would look each up.
pub(super) fn select_members(link: &Link) -> String {
    format!(
        "SELECT d.{0}::text, d.{1} FROM unnest($1::text[]) AS n (k) JOIN {2} d ON d.{0} = n.k",
        quoted(&link.natural_key),
        quoted(&link.member_key),
        table_name(&link.table),
    )
}

/// Makes inferred members of the natural keys `$1`, which are sorted; those that have come meanwhile stay.
pub(super) fn insert_members(link: &Link) -> String {
    format!(
        "INSERT INTO {} ({}, \"inferred\") SELECT k, true FROM unnest($1::text[]) WITH ORDINALITY AS m (k, n) ORDER BY n \
         ON CONFLICT ({1}) DO NOTHING",
        table_name(&link.table),
        quoted(&link.natural_key)
    )
}

/// Makes inferred members, each with its name, of the spellings `$1` and names `$2` where the decision points at none.
pub(super) fn insert_named_members(link: &Link, by_name: &ByName) -> String {
    format!(
        "INSERT INTO {} ({natural_key}, \"inferred\", {}) SELECT DISTINCT ON (r.natural_key) r.natural_key, true, m.t\n\
         FROM unnest($1::text[], $2::text[]) AS m (k, t)\n\
         JOIN {SCHEMA}.resolution_decision r ON r.dimension = '{}' AND r.spelling = m.k ORDER BY r.natural_key, m.t\n\
         ON CONFLICT ({natural_key}) DO NOTHING",
        table_name(&link.table),
        quoted(&by_name.against),
        by_name.dimension,
        natural_key = quoted(&link.natural_key),
    )
}

/// Whether the member for facts that name nobody is there.
pub(super) fn unknown_member_exists(link: &Link) -> String {
    format!(
        "SELECT EXISTS (SELECT FROM {} WHERE {} = 0 AND {} = {UNKNOWN})",
        table_name(&link.table),
        quoted(&link.member_key),
        quoted(&link.natural_key)
    )
}

/// Locks tables in `mode`, one after the other in the order given.
pub(super) fn lock_tables<'a>(tables: impl Iterator<Item = &'a String>, mode: &str) -> Option<String> {
    let names: Vec<String> = tables.map(|name| table_name(name)).collect();
    (!names.is_empty()).then(|| format!("LOCK TABLE {} IN {mode} MODE", names.join(", ")))
}

/// `warehouse."fact_events"`
pub(super) fn table_name(name: &str) -> String {
    format!("{SCHEMA}.{}", quoted(name))
}

pub(super) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// Columns that are written, each with its value.
fn targets(plan: &TablePlan) -> Vec<(String, String)> {
    let own = plan.columns.iter().filter(|column| column.loaded).map(|column| column.name.clone());
    let own = own.map(|name| (name.clone(), format!("s.{}", quoted(&name))));
    let links = plan.links().iter().enumerate();
    let links = links.map(|(place, link)| (link.member_key.clone(), format!("d{place}.{}", quoted(&link.member_key))));
    let lineage = LINEAGE_COLUMNS.iter().map(|(name, _)| ((*name).to_owned(), format!("s.{}", quoted(name))));
    own.chain(links).chain(lineage).collect()
}

fn is_text(plan: &TablePlan, name: &str) -> bool {
    plan.column(name).is_some_and(|column| column.wire.sql() == "text")
}

fn names<'a>(columns: impl Iterator<Item = &'a str>) -> String {
    columns.map(quoted).collect::<Vec<_>>().join(", ")
}

fn temporary_name(number: usize) -> String {
    format!("sluice_load_{number}")
}
