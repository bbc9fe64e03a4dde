//! The statements that make and keep histories: pure text, every identifier quoted.

use super::history::{History, LinkedFact};
use super::merge_sql::{ORDER, quoted, table_name};
use super::plan::LINEAGE_COLUMNS;
use super::rollup_sql::text;

/// The natural keys that a transaction touches; gone with it.
pub(super) fn create_touched(number: usize) -> String {
    format!("CREATE TEMPORARY TABLE {} (\"member\" text PRIMARY KEY) ON COMMIT DROP", touched_name(number))
}

/// The members of the rows `t` that a query gives: `SELECT … FROM … t WHERE …` without its head.
pub(super) fn touch_rows(history: &History, number: usize, from: &str) -> String {
    format!(
        "INSERT INTO {} SELECT DISTINCT t.{} FROM {from} ON CONFLICT DO NOTHING",
        touched_name(number),
        quoted(&history.natural_key)
    )
}

/// The natural keys `$1`.
pub(super) fn touch_keys(number: usize) -> String {
    format!(
        "INSERT INTO {} SELECT DISTINCT k FROM unnest($1::text[]) AS k ON CONFLICT DO NOTHING",
        touched_name(number)
    )
}

/// The members that the spellings `$1` were decided to mean, in the dimension `$2`.
pub(super) fn touch_decided(number: usize) -> String {
    format!(
        "INSERT INTO {} SELECT DISTINCT r.natural_key FROM warehouse.resolution_decision r\n\
         WHERE r.spelling = ANY ($1::text[]) AND r.dimension = $2 ON CONFLICT DO NOTHING",
        touched_name(number)
    )
}

/// How many are touched. There are statistics of them from now on, unlike of any other temporary table.
pub(super) fn count_touched(number: usize) -> [String; 2] {
    let touched = touched_name(number);
    [format!("ANALYZE {touched}"), format!("SELECT count(*) FROM {touched}")]
}

/// Brings the touched members' intervals to what their versions make of them. Those that are so already stay as they are.
pub(super) fn recompute(history: &History, number: usize) -> String {
    let (table, member) = (table_name(&history.table()), quoted(&history.member_key));
    let columns = row_columns(history);
    let listed = |prefix: &str| columns.iter().map(|name| format!("{prefix}{name}")).collect::<Vec<_>>().join(", ");
    let assigned: Vec<String> = columns.iter().map(|name| format!("{name} = excluded.{name}")).collect();
    format!(
        "WITH n AS MATERIALIZED (\n{intervals}),\n\
         gone AS (DELETE FROM {table} h USING {touched} k, {dimension} m\n\
         WHERE m.{natural} = k.\"member\" AND h.{member} = m.{member}\n\
         AND NOT EXISTS (SELECT FROM n WHERE n.{member} = h.{member} AND n.valid_from = h.valid_from))\n\
         INSERT INTO {table} AS h ({member}, valid_from, {all}) SELECT {member}, valid_from, {all} FROM n ORDER BY {member}, valid_from\n\
         ON CONFLICT ({member}, valid_from) DO UPDATE SET {assigned}\n\
         WHERE ({is}) IS DISTINCT FROM ({should})",
        intervals = intervals(history, Some(number)),
        touched = touched_name(number),
        dimension = table_name(&history.dimension),
        natural = quoted(&history.natural_key),
        all = listed(""),
        assigned = assigned.join(", "),
        is = listed("h."),
        should = listed("excluded."),
    )
}

/// Makes the table from all versions, described and indexed.
pub(super) fn build(history: &History) -> String {
    let (table, member) = (table_name(&history.table()), quoted(&history.member_key));
    let natural = quoted(&history.natural_key);
    let mut sql = format!(
        "DROP TABLE IF EXISTS {table};\n\
         CREATE TABLE {table} AS\n{};\n\
         ALTER TABLE {table} ALTER COLUMN {member} SET NOT NULL, ALTER COLUMN {natural} SET NOT NULL, ALTER COLUMN valid_from SET NOT NULL,\n\
         ALTER COLUMN valid_to SET NOT NULL, ADD PRIMARY KEY ({member}, valid_from), ADD CHECK (valid_from < valid_to);\n",
        intervals(history, None),
    );
    let dimension = &history.dimension;
    let mut comments = vec![
        (history.member_key.clone(), format!("surrogate key of {dimension}; 0: unknown")),
        (history.natural_key.clone(), "the member's own id".to_owned()),
        ("valid_from".to_owned(), "it holds from then on; -infinity: nothing earlier is known".to_owned()),
        ("valid_to".to_owned(), "and before then; infinity: until now".to_owned()),
    ];
    comments.extend(history.columns.iter().map(|column| {
        let name = &column.name;
        (name.clone(), format!("{name} of {dimension} in that time"))
    }));
    comments.extend(LINEAGE_COLUMNS.iter().map(|(name, _)| {
        let what = if ORDER.contains(name) { "rank and lineage" } else { "lineage" };
        ((*name).to_owned(), format!("{what} of the row that began it: {name} of {dimension}"))
    }));
    for (column, comment) in comments {
        sql.push_str(&format!("COMMENT ON COLUMN {table}.{} IS {};\n", quoted(&column), text(&comment)));
    }
    let comment = format!(
        "what {dimension} said in which time (type 2), kept exactly by every load; see warehouse.dimension_history"
    );
    sql.push_str(&format!("COMMENT ON TABLE {table} IS {};\n", text(&comment)));
    sql
}

/// How many intervals there are, how many members have more than one, and how many are not as they should be.
pub(super) fn compare(history: &History) -> String {
    let (table, member) = (table_name(&history.table()), quoted(&history.member_key));
    let columns = format!("{member}, valid_from, {}", row_columns(history).join(", "));
    format!(
        "WITH kept AS (SELECT {columns} FROM {table}), should AS (SELECT {columns} FROM (\n{}) q)\n\
         SELECT (SELECT count(*) FROM kept) AS interval_count,\n\
         (SELECT count(*) FROM kept WHERE valid_from = '-infinity' AND valid_to < 'infinity') AS changed_member_count,\n\
         (SELECT count(*) FROM (TABLE kept EXCEPT ALL TABLE should) a) + (SELECT count(*) FROM (TABLE should EXCEPT ALL TABLE kept) b)\n\
         AS difference_count",
        intervals(history, None)
    )
}

/// Facts with the values of tracked columns at their time, described. The unknown member has none.
pub(super) fn view(name: &str, fact_name: &str, fact: &LinkedFact, histories: &[&History]) -> String {
    let view = table_name(name);
    let mut columns: Vec<(String, String, String)> = fact
        .columns
        .iter()
        .map(|column| (format!("f.{}", quoted(column)), column.clone(), format!("{column} of {fact_name}")))
        .collect();
    let mut joins = String::new();
    for (place, history) in histories.iter().enumerate() {
        let (points, may_merge) = &fact.links[&history.dimension];
        let (member, points) = (quoted(&history.member_key), quoted(points));
        let dimension = &history.dimension;
        let means = if *may_merge {
            format!("coalesce(d{place}.\"merged_into\", d{place}.{member})")
        } else {
            format!("d{place}.{member}")
        };
        joins.push_str(&format!(
            "\nLEFT JOIN {} d{place} ON d{place}.{member} = f.{points} AND f.{points} <> 0\n\
             LEFT JOIN {} h{place} ON h{place}.{member} = {means} AND h{place}.valid_from <= f.{time} AND f.{time} < h{place}.valid_to",
            table_name(dimension),
            table_name(&history.table()),
            time = quoted(&fact.time),
        ));
        let natural = &history.natural_key;
        let own = (natural, natural.clone(), format!("the member of {dimension} that it means today"));
        let tracked = history.columns.iter().map(|column| {
            let (name, shown) = (&column.name, format!("{}_{}", history.member(), column.name));
            (name, shown, format!("{name} of {dimension} when it happened"))
        });
        for (column, shown, comment) in std::iter::once(own).chain(tracked) {
            // a fact may have a column of that name
            let is_taken = |name: &str| columns.iter().any(|(_, taken, _)| taken == name);
            let shown = if is_taken(&shown) { format!("{shown}_as_of") } else { shown };
            columns.push((format!("h{place}.{}", quoted(column)), shown, comment));
        }
    }
    let listed: Vec<String> = columns.iter().map(|(value, shown, _)| format!("{value} AS {}", quoted(shown))).collect();
    let mut sql =
        format!("CREATE VIEW {view} AS SELECT {}\nFROM {} f{joins};\n", listed.join(", "), table_name(fact_name));
    for (_, shown, comment) in &columns {
        sql.push_str(&format!("COMMENT ON COLUMN {view}.{} IS {};\n", quoted(shown), text(comment)));
    }
    let comment = format!("{fact_name} with what its members were when it happened; null where unknown");
    sql.push_str(&format!("COMMENT ON VIEW {view} IS {};\n", text(&comment)));
    sql
}

/// What the versions make: of those that are touched, or of all.
fn intervals(history: &History, touched: Option<usize>) -> String {
    let (dimension, natural) = (table_name(&history.dimension), quoted(&history.natural_key));
    let member = quoted(&history.member_key);
    let shadow = table_name(&format!("{}_shadow", history.dimension));
    let touched = touched.map(|number| format!(" JOIN {} k ON k.\"member\" = m.{natural}", touched_name(number)));
    let touched = touched.unwrap_or_default();
    let tracked: Vec<String> = history.columns.iter().map(|column| quoted(&column.name)).collect();
    let lineage = LINEAGE_COLUMNS.map(|(name, _)| quoted(name));
    let version = |alias: &str| {
        let columns = tracked.iter().chain(&lineage).map(|name| format!("{alias}.{name}"));
        columns.collect::<Vec<_>>().join(", ")
    };
    let by_rank: Vec<String> = ORDER.iter().map(|name| format!("{} DESC", quoted(name))).collect();
    let before: Vec<String> = tracked.iter().map(|name| format!("lag({name}) OVER w")).collect();
    let window = format!("WINDOW w AS (PARTITION BY {member} ORDER BY \"_newer_at\" NULLS FIRST)");
    let (tracked, lineage) = (tracked.join(", "), lineage.join(", "));
    format!(
        "SELECT {member}, {natural}, {tracked}, CASE WHEN is_first THEN '-infinity' ELSE \"_newer_at\" END AS valid_from,\n\
         coalesce(lead(\"_newer_at\") OVER w, 'infinity') AS valid_to, {lineage} FROM (\n\
         SELECT *, row_number() OVER w = 1 AS is_first,\n\
         row_number() OVER w = 1 OR ({tracked}) IS DISTINCT FROM ({before}) AS is_new FROM (\n\
         SELECT DISTINCT ON ({member}, \"_newer_at\") * FROM (\n\
         SELECT m.{member}, m.{natural}, {own} FROM {dimension} m{touched}\n\
         UNION ALL SELECT m.{member}, m.{natural}, {outranked} FROM {dimension} m{touched} JOIN {shadow} s ON s.{natural} = m.{natural}) v\n\
         ORDER BY {member}, {by_rank}) p {window}) c\n\
         WHERE is_new {window}",
        before = before.join(", "),
        own = version("m"),
        outranked = version("s"),
        by_rank = by_rank.join(", "),
    )
}

/// All of an interval but for what names it, quoted.
fn row_columns(history: &History) -> Vec<String> {
    let names = [history.natural_key.as_str(), "valid_to"].into_iter();
    let names = names.chain(history.columns.iter().map(|column| column.name.as_str()));
    names.chain(LINEAGE_COLUMNS.iter().map(|(name, _)| *name)).map(quoted).collect()
}

fn touched_name(number: usize) -> String {
    format!("pg_temp.{}", quoted(&format!("sluice_members_{number}")))
}
