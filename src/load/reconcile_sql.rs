//! The statements that bring a table and its shadow to what the micro-batches make of them: pure text, every
//! identifier quoted.
//!
//! Rows wait in a temporary table with the columns of the shadow (`rows`), resolved and complete. Of all rows of
//! one key the newest is in the table, the others in the shadow, each once by (identity, lineage): LOAD-2, LOAD-3.

use std::ops::RangeInclusive;

use chrono::NaiveDate;

use super::merge_sql::{ORDER, quoted, table_name};
use super::plan::LoadTable;
use crate::telemetry::guarded;

/// The parameters `$1, $2, $3` of statements about a range: source, first offset, next offset.
const IN_RANGE: &str = "t.\"_source\" = $1 AND t.\"_offset\" >= $2 AND t.\"_offset\" < $3";

const LINEAGE: [&str; 4] = ["_source", "_offset", "_record", "_row"];

/// The temporary tables: rows of the micro-batch, and what a replay takes away.
pub(super) fn create_temporary(table: &LoadTable) -> String {
    let shadow = table_name(&table.shadow());
    format!(
        "CREATE TEMPORARY TABLE {} (LIKE {shadow} INCLUDING DEFAULTS) ON COMMIT DROP;\n\
         CREATE TEMPORARY TABLE {} (LIKE {shadow} INCLUDING DEFAULTS) ON COMMIT DROP",
        rows_name(table),
        gone_name(table)
    )
}

pub(super) fn rows_name(table: &LoadTable) -> String {
    format!("pg_temp.{}", quoted(&format!("sluice_rows_{}", table.number)))
}

pub(super) fn gone_name(table: &LoadTable) -> String {
    format!("pg_temp.{}", quoted(&format!("sluice_gone_{}", table.number)))
}

/// Copies complete rows into a table, given its name.
pub(super) fn copy_in(into: &str, columns: &[String]) -> String {
    format!("COPY {into} ({}) FROM STDIN (FORMAT binary)", names(columns, ""))
}

/// Which of the keys, given as an array for each column, a day's partition (or the whole table) holds: their places, from 1.
pub(super) fn find_held(table: &LoadTable, partition: &str) -> String {
    let Keys { arrays, names, same } = keys(table, "t");
    format!("SELECT k.n FROM unnest({arrays}) WITH ORDINALITY AS k ({names}, n) JOIN {partition} t ON {same}")
}

/// Keys as parameters, an array for each column of the identity.
struct Keys {
    arrays: String,
    names: String,
    /// That a row of that alias has the key.
    same: String,
}

fn keys(table: &LoadTable, alias: &str) -> Keys {
    let listed = |of: &dyn Fn(usize) -> String, between: &str| {
        (0..table.identity.len()).map(of).collect::<Vec<_>>().join(between)
    };
    Keys {
        arrays: listed(&|n| format!("${}::{}[]", n + 1, table.identity_types[n]), ", "),
        names: listed(&|n| format!("k{n}"), ", "),
        same: listed(&|n| format!("{alias}.{} = k.k{n}", quoted(&table.identity[n])), " AND "),
    }
}

/// For a look by alias `f`: rows of the table that meet one of the micro-batch.
pub(super) fn held_rows(table: &LoadTable) -> String {
    joined(table, "f", &rows_name(table), "r")
}

/// Likewise: rows of the table that took the place of one taken away.
pub(super) fn promoted_rows(table: &LoadTable) -> String {
    joined(table, "f", &gone_name(table), "g")
}

/// The rows of another table, each with the row of its key. Where a key's time may change the key map tells its partition.
fn joined(table: &LoadTable, alias: &str, other: &str, other_alias: &str) -> String {
    let name = table_name(&table.name);
    match &table.changing_time {
        None => format!("{name} {alias} JOIN {other} {other_alias} ON {}", same(&table.identity, alias, other_alias)),
        Some(time) => format!(
            "{other} {other_alias} JOIN {} m ON {} JOIN {name} {alias} ON {} AND {alias}.{time} = m.{time}",
            table_name(&table.key_map()),
            same(&table.identity, "m", other_alias),
            same(&table.identity, alias, "m"),
            time = quoted(time),
        ),
    }
}

/// For DELETE … USING: that the row `t` of the table has the key of the row `r`, and what else must be named for that.
fn meets(table: &LoadTable) -> (String, String) {
    let Some(time) = &table.changing_time else { return (String::new(), same(&table.identity, "t", "r")) };
    let (map, time) = (table_name(&table.key_map()), quoted(time));
    let (is_r, is_m) = (same(&table.identity, "m", "r"), same(&table.identity, "t", "m"));
    (format!(", {map} m"), format!("{is_r} AND {is_m} AND t.{time} = m.{time}"))
}

/// Of a fact whose keys get one row each: all but the newest of a key go to the shadow.
pub(super) fn shadow_doubled(table: &LoadTable, time: &str) -> String {
    let (name, columns, time) = (table_name(&table.name), list(table, ""), quoted(time));
    format!(
        "WITH ranked AS (SELECT {key}, {time}, row_number() OVER (PARTITION BY {key} ORDER BY {by_rank}) AS rank FROM {name}),\n\
         lost AS (DELETE FROM {name} t USING ranked k WHERE {same} AND t.{time} = k.{time} AND k.rank > 1 RETURNING {lost})\n\
         INSERT INTO {shadow} ({columns}) SELECT {columns} FROM lost",
        key = names(&table.identity, ""),
        by_rank = ORDER.map(|name| format!("{} DESC", quoted(name))).join(", "),
        same = same(&table.identity, "t", "k"),
        lost = list(table, "t."),
        shadow = table_name(&table.shadow()),
    )
}

/// How many of the keys, given as an array for each column, the fact holds with another time. `days`: on these alone, the last
/// one included.
pub(super) fn count_other_times_of(table: &LoadTable, time: &str, days: Option<&RangeInclusive<NaiveDate>>) -> String {
    let Keys { arrays, names, .. } = keys(table, "f");
    let of = |n: usize| {
        let (column, is) = (&table.identity[n], if table.identity[n] == time { "<>" } else { "=" });
        format!("f.{} {is} k.k{n}", quoted(column))
    };
    let other = (0..table.identity.len()).map(of).collect::<Vec<_>>().join(" AND ");
    // written out, so that the other partitions are neither planned for nor locked
    let within = days.map_or_else(String::new, |days| {
        let (first, last, time) = (days.start(), days.end(), quoted(time));
        format!(" AND f.{time} >= '{first} 00:00Z'::timestamptz AND f.{time} <= '{last} 23:59:59.999999Z'::timestamptz")
    });
    format!(
        "SELECT count(*) FROM unnest({arrays}) AS k ({names}) WHERE EXISTS (SELECT FROM {} f WHERE {other}{within})",
        table_name(&table.name)
    )
}

/// Likewise, of so many rows that wait.
pub(super) fn count_other_times_waiting(table: &LoadTable, time: &str, count: usize) -> String {
    let of = |column: &String| {
        let is = if column == time { "<>" } else { "=" };
        format!("f.{0} {is} r.{0}", quoted(column))
    };
    let other = table.identity.iter().map(of).collect::<Vec<_>>().join(" AND ");
    format!(
        "SELECT count(*) FROM (SELECT {} FROM {} LIMIT {count}) r WHERE EXISTS (SELECT FROM {} f WHERE {other})",
        names(&table.identity, ""),
        rows_name(table),
        table_name(&table.name)
    )
}

/// Forgets the times of the keys that were taken away.
pub(super) fn forget_times(table: &LoadTable) -> String {
    format!(
        "DELETE FROM {} m USING {} g WHERE {}",
        table_name(&table.key_map()),
        gone_name(table),
        same(&table.identity, "m", "g")
    )
}

/// Notes the times of the rows that are to be inserted.
pub(super) fn note_times(table: &LoadTable, time: &str) -> String {
    note_times_of(
        table,
        time,
        &format!("SELECT {}, {} FROM {} ORDER BY 1", names(&table.identity, ""), quoted(time), rows_name(table)),
    )
}

fn note_times_of(table: &LoadTable, time: &str, select: &str) -> String {
    let (key, time) = (names(&table.identity, ""), quoted(time));
    format!(
        "INSERT INTO {} AS m ({key}, {time}) {select}\n\
         ON CONFLICT ({key}) DO UPDATE SET {time} = excluded.{time} WHERE m.{time} <> excluded.{time}",
        table_name(&table.key_map())
    )
}

/// Likewise: rows of the keys that are given as an array for each column.
pub(super) fn rows_of_keys(table: &LoadTable) -> String {
    let Keys { arrays, names, same } = keys(table, "f");
    format!("unnest({arrays}) AS k ({names}) JOIN {} f ON {same}", table_name(&table.name))
}

/// How many rows of the range the table or its shadow holds, and how many of them the micro-batch makes again, exactly.
pub(super) fn count_made_again(table: &LoadTable) -> String {
    let of = |name: String| {
        format!(
            "SELECT count(*) AS held, count(r.\"_row\") AS same FROM {name} t LEFT JOIN {} r\n\
             ON {} AND {} AND ({}) IS NOT DISTINCT FROM ({}) WHERE {IN_RANGE}",
            rows_name(table),
            same(&table.identity, "r", "t"),
            same_lineage("r", "t"),
            list(table, "r."),
            list(table, "t."),
        )
    };
    format!(
        "SELECT sum(held)::bigint AS held, sum(same)::bigint AS same FROM (\n{}\nUNION ALL\n{}) AS q",
        of(table_name(&table.name)),
        of(table_name(&table.shadow()))
    )
}

/// How many rows of the range the table and its shadow hold.
pub(super) fn count_range(table: &LoadTable) -> String {
    let of = |name: String| format!("(SELECT count(*) FROM {name} t WHERE {IN_RANGE})");
    format!("SELECT {} + {} AS held", of(table_name(&table.name)), of(table_name(&table.shadow())))
}

/// For a look by alias `t`: rows of a range, of the table and of its shadow, that the micro-batch does not make again.
pub(super) fn leaving_rows(table: &LoadTable) -> [String; 2] {
    let unless_made_again = unless_made_again(table);
    [&table.name, &table.shadow()]
        .map(|name| format!("{} t WHERE {IN_RANGE} AND {unless_made_again}", table_name(name)))
}

/// Takes the rows of a range away that the micro-batch does not make again, exactly as they are. A member stays, as
/// if a fact had named it and nothing more were known.
pub(super) fn retract(table: &LoadTable) -> String {
    let (name, gone, columns) = (table_name(&table.name), gone_name(table), list(table, ""));
    let unless_made_again = unless_made_again(table);
    if table.is_fact {
        return format!(
            "WITH gone AS (DELETE FROM {name} t WHERE {IN_RANGE} AND {unless_made_again} RETURNING {})\n\
             INSERT INTO {gone} ({columns}) SELECT {columns} FROM gone",
            list(table, "t.")
        );
    }
    let emptied: Vec<String> = table
        .columns
        .iter()
        .filter(|column| !table.identity.contains(column))
        .map(|column| format!("{} = NULL", quoted(column)))
        .collect();
    let identity = names(&table.identity, "");
    format!(
        "WITH gone AS (UPDATE {name} t SET \"inferred\" = true, {} WHERE {IN_RANGE} AND {unless_made_again} RETURNING {})\n\
         INSERT INTO {gone} ({identity}, {lineage}) SELECT {identity}, 0, 0, 0, 0 FROM gone",
        emptied.join(", "),
        names(&table.identity, "t."),
        lineage = LINEAGE.map(quoted).join(", "),
    )
}

pub(super) fn retract_shadow(table: &LoadTable) -> String {
    format!("DELETE FROM {} t WHERE {IN_RANGE} AND {}", table_name(&table.shadow()), unless_made_again(table))
}

/// Puts the best of the shadow in the place of what was taken away.
pub(super) fn promote(table: &LoadTable) -> String {
    let (shadow, columns) = (table_name(&table.shadow()), list(table, ""));
    let identity = names(&table.identity, "s.");
    // its day may have been taken out of the fact: then it stays where it is, and an older row comes back
    let placed = table.changing_time.as_ref().map_or_else(String::new, |time| {
        format!(
            " AND EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid\n\
             WHERE i.inhparent = '{}'::regclass AND c.relname = '{}_p' || to_char(s.{} AT TIME ZONE 'UTC', 'YYYYMMDD'))",
            table_name(&table.name),
            table.name,
            quoted(time)
        )
    });
    let best = format!(
        "WITH best AS (SELECT DISTINCT ON ({identity}) {identity}, {} FROM {shadow} s\n\
         WHERE EXISTS (SELECT FROM {} g WHERE {}){placed}\n\
         ORDER BY {identity}, {}),\n\
         moved AS (DELETE FROM {shadow} s USING best b WHERE {} AND {} RETURNING {})\n",
        LINEAGE.map(|name| format!("s.{}", quoted(name))).join(", "),
        gone_name(table),
        same(&table.identity, "g", "s"),
        ORDER.map(|name| format!("s.{} DESC", quoted(name))).join(", "),
        same(&table.identity, "b", "s"),
        same_lineage("b", "s"),
        list(table, "s."),
    );
    if table.is_fact {
        let insert = format!("INSERT INTO {} ({columns}) SELECT {columns} FROM moved", table_name(&table.name));
        let Some(time) = &table.changing_time else { return format!("{best}{insert}") };
        let moved = format!("SELECT {}, {} FROM moved", names(&table.identity, ""), quoted(time));
        return format!("{},\nplaced AS ({insert})\n{}", best.trim_end(), note_times_of(table, time, &moved));
    }
    format!(
        "{best}UPDATE {} t SET \"inferred\" = false, {} FROM moved m WHERE {}",
        table_name(&table.name),
        assignments(table, "m"),
        same(&table.identity, "t", "m")
    )
}

/// Rows of the range that are there already, in the table or its shadow, and need not be written.
pub(super) fn forget_present(table: &LoadTable) -> [String; 2] {
    [table_name(&table.name), table_name(&table.shadow())].map(|name| {
        format!(
            "DELETE FROM {} r USING {name} t WHERE {IN_RANGE} AND {} AND {}",
            rows_name(table),
            same(&table.identity, "t", "r"),
            same_lineage("t", "r")
        )
    })
}

/// Of rows with one key within the micro-batch, all but the newest go to the shadow.
pub(super) fn shadow_own_losers(table: &LoadTable) -> String {
    let (rows, columns) = (rows_name(table), list(table, ""));
    format!(
        "WITH ranked AS (SELECT ctid AS place, row_number() OVER (PARTITION BY {} ORDER BY {}) AS rank FROM {rows}),\n\
         lost AS (DELETE FROM {rows} r USING ranked k WHERE r.ctid = k.place AND k.rank > 1 RETURNING {})\n\
         INSERT INTO {} ({columns}) SELECT {columns} FROM lost",
        names(&table.identity, ""),
        ORDER.map(|name| format!("{} DESC", quoted(name))).join(", "),
        list(table, "r."),
        table_name(&table.shadow()),
    )
}

/// How many rows meet one of their key in the table. Mostly none, which spares the two statements below.
pub(super) fn count_held(table: &LoadTable) -> String {
    format!("SELECT count(*) FROM {}{}", joined(table, "t", &rows_name(table), "r"), is_row(table))
}

/// What the table holds and a row outranks goes to the shadow.
pub(super) fn shadow_outranked(table: &LoadTable) -> String {
    let (name, shadow, columns) = (table_name(&table.name), table_name(&table.shadow()), list(table, ""));
    let (besides, same) = meets(table);
    let outranked = format!("{same}{} AND {}", is_row(table), row_is_newer());
    if table.is_fact {
        return format!(
            "WITH older AS (DELETE FROM {name} t USING {} r{besides} WHERE {outranked} RETURNING {})\n\
             INSERT INTO {shadow} ({columns}) SELECT {columns} FROM older",
            rows_name(table),
            list(table, "t."),
        );
    }
    format!(
        "INSERT INTO {shadow} ({columns}) SELECT {} FROM {name} t JOIN {} r ON {outranked}",
        list(table, "t."),
        rows_name(table),
    )
}

/// Rows that what the table holds outranks go to the shadow.
pub(super) fn shadow_beaten(table: &LoadTable) -> String {
    let columns = list(table, "");
    let (besides, same) = meets(table);
    format!(
        "WITH beaten AS (DELETE FROM {} r USING {} t{besides} WHERE {same}{} AND NOT {} RETURNING {})\n\
         INSERT INTO {} ({columns}) SELECT {columns} FROM beaten",
        rows_name(table),
        table_name(&table.name),
        is_row(table),
        row_is_newer(),
        list(table, "r."),
        table_name(&table.shadow()),
    )
}

/// The rows that are left are the newest of their keys. By key, so that neighbours land on the same pages. Returns
/// how many were new keys and how many were not.
pub(super) fn insert(table: &LoadTable) -> String {
    let (name, rows, columns) = (table_name(&table.name), rows_name(table), list(table, ""));
    let by_key = names(&table.identity, "");
    if table.is_fact {
        return format!(
            "WITH inserted AS (INSERT INTO {name} ({columns}) SELECT {columns} FROM {rows} ORDER BY {by_key} RETURNING 1)\n\
             SELECT count(*) AS inserted, 0::bigint AS updated FROM inserted"
        );
    }
    format!(
        "WITH written AS (INSERT INTO {name} AS t (\"inferred\", {columns}) SELECT false, {columns} FROM {rows} ORDER BY {by_key}\n\
         ON CONFLICT ({by_key}) DO UPDATE SET \"inferred\" = false, {} RETURNING (t.xmax = 0) AS is_new)\n\
         SELECT count(*) FILTER (WHERE is_new) AS inserted, count(*) FILTER (WHERE NOT is_new) AS updated FROM written",
        assignments(table, "EXCLUDED"),
    )
}

/// True of a row `t` that the micro-batch's rows do not contain, with all its values.
fn unless_made_again(table: &LoadTable) -> String {
    format!(
        "NOT EXISTS (SELECT FROM {} r WHERE {} AND {} AND ({}) IS NOT DISTINCT FROM ({}))",
        rows_name(table),
        same(&table.identity, "r", "t"),
        same_lineage("r", "t"),
        list(table, "r."),
        list(table, "t."),
    )
}

/// An inferred member holds no row.
fn is_row(table: &LoadTable) -> &'static str {
    if table.is_fact { "" } else { " AND t.\"_newer_at\" IS NOT NULL" }
}

fn assignments(table: &LoadTable, from: &str) -> String {
    let changed = table.columns.iter().filter(|column| !table.identity.contains(column));
    changed.map(|column| format!("{0} = {from}.{0}", quoted(column))).collect::<Vec<_>>().join(", ")
}

/// True where the row `r` outranks the row `t` of the table.
fn row_is_newer() -> String {
    if guarded!("order") { format!("({}) > ({})", order("r"), order("t")) } else { "true".to_owned() }
}

/// For tests of what keeps losers.
pub(super) fn forget_losers(table: &LoadTable) -> String {
    format!("DELETE FROM {}", table_name(&table.shadow()))
}

fn order(alias: &str) -> String {
    ORDER.map(|name| format!("{alias}.{}", quoted(name))).join(", ")
}

fn same(columns: &[String], one: &str, other: &str) -> String {
    let equal = columns.iter().map(|column| format!("{one}.{0} = {other}.{0}", quoted(column)));
    equal.collect::<Vec<_>>().join(" AND ")
}

fn same_lineage(one: &str, other: &str) -> String {
    same(&LINEAGE.map(str::to_owned), one, other)
}

/// All columns of a row.
fn list(table: &LoadTable, prefix: &str) -> String {
    names(&table.columns, prefix)
}

fn names(columns: &[String], prefix: &str) -> String {
    columns.iter().map(|column| format!("{prefix}{}", quoted(column))).collect::<Vec<_>>().join(", ")
}
