//! The demo's rollup: its last hours, and whether a recomputation gives the same; the history of its products likewise.

use std::io::Write;

use anyhow::Context;
use comfy_table::{Table, presets};
use deadpool_postgres::GenericClient;

use crate::load::{HistoryState, history_states, rollup_states};

const COLUMNS: [&str; 7] = ["hour (UTC)", "currency", "source", "revenue", "pieces", "buyers", "rows"];
/// Of the last hours, the cells with the largest revenue.
const CELLS: &str =
    "SELECT to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), currency, source, revenue::text, pieces::text, \
                            buyers::text, row_count::text
                       FROM warehouse.rollup_revenue_hourly ORDER BY hour DESC, revenue DESC LIMIT 6";

/// Prints it. `false`: a rollup is not what the rows of its fact make, or a history what its versions make.
pub(super) async fn show(client: &impl GenericClient, out: &mut dyn Write) -> anyhow::Result<bool> {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(COLUMNS);
    for row in client.query(CELLS, &[]).await.context("could not read the rollup")? {
        let cell = |place: usize| row.get::<_, Option<String>>(place).unwrap_or_else(|| "-".to_owned());
        table.add_row((0..COLUMNS.len()).map(cell));
    }
    writeln!(out, "{table}")?;
    let mut is_right = true;
    for rollup in rollup_states(client).await? {
        let (name, cells, fact) = (&rollup.name, rollup.cell_count, &rollup.fact);
        match rollup.difference_count {
            0 => writeln!(out, "{name}: {cells} cells, all of them what {fact} gives when computed anew")?,
            wrong => writeln!(out, "{name}: {cells} cells, {wrong} differ from what {fact} gives when computed anew")?,
        }
        is_right &= rollup.difference_count == 0;
    }
    for history in history_states(client).await? {
        let HistoryState { name, dimension, interval_count, changed_member_count, difference_count } = history;
        write!(out, "{name}: {interval_count} intervals, {changed_member_count} members have changed, ")?;
        match difference_count {
            0 => writeln!(out, "all of them what {dimension}'s versions give when computed anew")?,
            wrong => writeln!(out, "{wrong} differ from what {dimension}'s versions give when computed anew")?,
        }
        is_right &= difference_count == 0;
    }
    Ok(is_right)
}
