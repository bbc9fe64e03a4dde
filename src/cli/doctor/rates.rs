//! Whether what connectors load fits one PostgreSQL, by what was measured in the last 24 hours; and whether what is kept of it is right.

use std::collections::BTreeMap;
use std::io::Write;

use deadpool_postgres::GenericClient;

use crate::catalog::{Arrival, arrivals, backlog};
use crate::config::{Connectors, WarehouseTable};
use crate::load::{LoadRates, history_states, load_rates, rollup_states};

const SPAN_SECONDS: f64 = 86_400.0;
/// Of less nothing is said.
const SPAN_SECONDS_MIN: f64 = 60.0;
/// What is processed is kept for a year.
const KEPT_DAYS: f64 = 365.0;
/// Source: Amazon RDS User Guide, storage of a PostgreSQL instance (up to 64 TiB), read 2026-11. Servers of one's own are hardly larger.
const SERVER_BYTES_MAX: f64 = 64.0 * 1024.0 * 1024.0 * 1024.0 * 1024.0;

/// Prints what is measured. Nothing where nothing was loaded yet. A warning is not a failure.
pub(super) async fn show(
    catalog: &impl GenericClient,
    warehouse: &impl GenericClient,
    connectors: &Connectors,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let arrived = arrivals(catalog, SPAN_SECONDS).await?;
    let rates = load_rates(warehouse, SPAN_SECONDS).await?;
    let waiting = backlog(catalog).await?.batches_unloaded;
    let facts = connectors.all.iter().filter_map(|connector| match &connector.warehouse.as_ref()?.target {
        WarehouseTable::Fact(fact) => Some((connector.name.clone(), fact.clone())),
        WarehouseTable::Dimension(_) => None,
    });
    for line in verdicts(&arrived, &facts.collect(), &rates, waiting) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// `facts`: by connector.
fn verdicts(arrived: &[Arrival], facts: &BTreeMap<String, String>, rates: &LoadRates, waiting: i64) -> Vec<String> {
    let measured = arrived.iter().filter(|arrival| arrival.seconds >= SPAN_SECONDS_MIN);
    let loaded = measured.filter_map(|arrival| Some((arrival, facts.get(&arrival.connector)?)));
    let (mut lines, mut total) = (Vec::new(), 0.0);
    for (arrival, fact) in loaded {
        let come = arrival.row_count as f64 / arrival.seconds;
        total += come;
        let Some(row_bytes) = rates.row_bytes.get(fact) else { continue };
        let day = come * row_bytes * 86_400.0;
        let said = format!(
            "{}: {come:.0} rows/s of {} come into {fact}: {} a day, {} in {KEPT_DAYS:.0} days",
            arrival.connector,
            bytes(*row_bytes),
            bytes(day),
            bytes(day * KEPT_DAYS)
        );
        lines.push(if day * KEPT_DAYS <= SERVER_BYTES_MAX {
            format!("ok      {said}")
        } else {
            let most = bytes(SERVER_BYTES_MAX);
            format!(
                "warning {said}, and one PostgreSQL holds some {most}: load some of the rows (`load.rows`), or leave \
                 `warehouse` out and query the lake"
            )
        });
    }
    if total > 0.0 {
        let reached = rates.rows_per_second_max;
        let said = format!("loading: {total:.0} rows/s come, the busiest minute has loaded {reached:.0} rows/s");
        lines.push(if total <= reached || waiting == 0 {
            format!("ok      {said}")
        } else {
            format!(
                "warning {said}, and {waiting} micro-batches wait: PostgreSQL does not keep up; load some of the rows \
                 (`load.rows`), or give it more processors"
            )
        });
    }
    lines
}

/// Decimal, as disks are sold.
fn bytes(count: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut count, mut unit) = (count, 0);
    while count >= 1000.0 && unit + 1 < units.len() {
        (count, unit) = (count / 1000.0, unit + 1);
    }
    format!("{count:.*} {}", usize::from(unit > 0), units[unit])
}

/// Compares rollups and histories with what they are made of. `false`: one differs.
pub(super) async fn show_kept(warehouse: &impl GenericClient, out: &mut dyn Write) -> anyhow::Result<bool> {
    let rollups = rollup_states(warehouse).await?.into_iter();
    let rollups = rollups.map(|state| (state.name, state.cell_count, state.fact, state.difference_count, "rollup"));
    let histories = history_states(warehouse).await?.into_iter();
    let histories = histories
        .map(|state| (state.name, state.interval_count, state.dimension, state.difference_count, "dimension_history"));
    let mut is_right = true;
    for (name, count, of, wrong, registry) in rollups.chain(histories) {
        is_right &= wrong == 0;
        match wrong {
            0 => writeln!(out, "ok      {name}: all {count} rows are what {of} gives when computed anew")?,
            _ => writeln!(
                out,
                "failed  {name}: {wrong} rows differ from what {of} gives: delete its row in warehouse.{registry} and \
                 restart a load role, which makes it anew"
            )?,
        }
    }
    Ok(is_right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(row_count: i64, row_bytes: f64, rows_per_second_max: f64, waiting: i64) -> Vec<String> {
        let arrival =
            |connector: &str, row_count, seconds| Arrival { connector: connector.to_owned(), row_count, seconds };
        let arrived =
            [arrival("events", row_count, 3_600.0), arrival("users", 1_000, 3_600.0), arrival("new", 9_000_000, 5.0)];
        let facts =
            [("events", "fact_events"), ("new", "fact_events")].map(|(name, fact)| (name.to_owned(), fact.to_owned()));
        let rates =
            LoadRates { rows_per_second_max, row_bytes: BTreeMap::from([("fact_events".to_owned(), row_bytes)]) };
        verdicts(&arrived, &facts.into(), &rates, waiting)
    }

    #[test]
    fn what_fits_is_told_with_its_figures() {
        insta::assert_snapshot!(said(3_600_000, 250.0, 40_000.0, 3).join("\n"), @r"
        ok      events: 1000 rows/s of 250 B come into fact_events: 21.6 GB a day, 7.9 TB in 365 days
        ok      loading: 1000 rows/s come, the busiest minute has loaded 40000 rows/s
        ");
    }

    #[test]
    fn ten_terabytes_a_day_do_not_fit_and_a_backlog_that_grows_is_told() {
        insta::assert_snapshot!(said(1_666_800_000, 250.0, 90_000.0, 12).join("\n"), @r"
        warning events: 463000 rows/s of 250 B come into fact_events: 10.0 TB a day, 3.7 PB in 365 days, and one PostgreSQL holds some 70.4 TB: load some of the rows (`load.rows`), or leave `warehouse` out and query the lake
        warning loading: 463000 rows/s come, the busiest minute has loaded 90000 rows/s, and 12 micro-batches wait: PostgreSQL does not keep up; load some of the rows (`load.rows`), or give it more processors
        ");
        assert!(said(1_666_800_000, 250.0, 90_000.0, 0)[1].starts_with("ok"), "nothing waits");
    }
}
