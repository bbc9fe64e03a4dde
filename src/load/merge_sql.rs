//! The statements of a load, made from a plan: pure text, every identifier quoted.

use std::fmt::Write;

use super::plan::{LINEAGE_COLUMNS, Link, TableKind, TablePlan};
use super::warehouse_table::SCHEMA;

/// The order among rows of one key, all of it from the data: LOAD-2.
const ORDER: [&str; 4] = ["_newer_at", "_object_time", "_object_hash", "_row"];

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

/// Merges part `number` into its table: of rows with one key the newest stays, here or there.
/// Rows go in by key, so that neighbours land on the same pages.
pub(super) fn merge(plan: &TablePlan, number: usize) -> String {
    let identity = plan.identity();
    let targets = targets(plan);
    let mut sql = format!(
        "INSERT INTO {} AS t ({})\n",
        table_name(&plan.table),
        names(targets.iter().map(|(name, _)| name.as_str()))
    );
    let sort_keys: Vec<String> = identity.iter().map(|name| sort_key(plan, name)).collect();
    let values: Vec<&str> = targets.iter().map(|(_, value)| value.as_str()).collect();
    let _ = writeln!(sql, "SELECT DISTINCT ON ({}) {}", sort_keys.join(", "), values.join(", "));
    let _ = writeln!(sql, "FROM pg_temp.{} s", temporary_name(number));
    for (place, link) in plan.links().iter().enumerate() {
        let _ = writeln!(
            sql,
            "LEFT JOIN {} d{place} ON d{place}.{} = coalesce(s.{}::text, {UNKNOWN})",
            table_name(&link.table),
            quoted(&link.natural_key),
            quoted(&link.column),
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
    let newest_first = ORDER.iter().map(|name| format!("s.{} DESC", quoted(name)));
    let _ = writeln!(sql, "ORDER BY {}", sort_keys.iter().cloned().chain(newest_first).collect::<Vec<_>>().join(", "));
    let _ = write!(sql, "ON CONFLICT ({}) DO UPDATE SET ", names(identity.iter().copied()));
    let changed: Vec<String> = targets
        .iter()
        .filter(|(name, _)| !identity.contains(&name.as_str()))
        .map(|(name, _)| format!("{0} = EXCLUDED.{0}", quoted(name)))
        .collect();
    let order = |table: &str| ORDER.map(|name| format!("{table}.{}", quoted(name))).join(", ");
    let _ = write!(
        sql,
        "{}\nWHERE t.\"_newer_at\" IS NULL OR ({}) > ({})",
        changed.join(", "),
        order("EXCLUDED"),
        order("t")
    );
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

/// Makes inferred members of the natural keys `$1`, which are sorted; those that have come meanwhile stay.
pub(super) fn insert_members(link: &Link) -> String {
    format!(
        "INSERT INTO {} ({}, \"inferred\") SELECT k, true FROM unnest($1::text[]) WITH ORDINALITY AS m (k, n) ORDER BY n \
         ON CONFLICT ({1}) DO NOTHING",
        table_name(&link.table),
        quoted(&link.natural_key)
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
    let inferred = (plan.kind == TableKind::Dimension).then(|| ("inferred".to_owned(), "false".to_owned()));
    let lineage = LINEAGE_COLUMNS.iter().map(|(name, _)| ((*name).to_owned(), format!("s.{}", quoted(name))));
    own.chain(links).chain(inferred).chain(lineage).collect()
}

/// Bytes compare faster than a language's rules, and any order will do.
fn sort_key(plan: &TablePlan, name: &str) -> String {
    let collation = if is_text(plan, name) { " COLLATE \"C\"" } else { "" };
    format!("s.{}{collation}", quoted(name))
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
