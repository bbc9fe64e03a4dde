//! Connectors of a world besides the shipped ones, or instead of them.

use sluice_loadtest::FileFormat;

use crate::stack::World;

impl World {
    /// Facts go through SQL: it does what clean steps and expectations did, so that the same rows come out, and fails on
    /// amounts of 0. Before [`World::with_formats`], which copies connectors.
    pub(crate) fn with_sql(&self) {
        let transactions = "SELECT transaction_id, user_id, product_id, amount, upper(currency) AS currency, quantity,
           source, occurred_at, updated_at, attributes, 100000 / CAST(amount * 100 AS BIGINT) AS inverse
    FROM input";
        // what a function makes may be null, and the warehouse wants a type
        let events =
            "SELECT event_id, user_id, product_id, event_type, session_id, source, occurred_at, properties, _rescued
    FROM input WHERE event_type <> 'heartbeat'";
        let heartbeats = "  - {name: not_heartbeat, expr: \"event_type <> 'heartbeat'\", on_fail: drop}\n";
        let changes: [(&str, &str, &[&str]); 2] =
            [("transactions", transactions, &["  - uppercase: currency\n"]), ("events", events, &[heartbeats])];
        for (name, sql, instead_of) in changes {
            let path = self.folder.join("connectors").join(format!("{name}.yaml"));
            let mut text = std::fs::read_to_string(&path).expect("it was written");
            for part in instead_of {
                assert_eq!(text.matches(part).count(), 1, "{part} stands once in {name}.yaml");
                text = text.replace(part, "");
            }
            text = text.replacen("\nstaging:\n", &format!("\ntransform:\n  sql: |\n    {sql}\n\nstaging:\n"), 1);
            std::fs::write(&path, text).expect("the folder is ours");
        }
    }

    /// Connectors that read the datasets from CSV and Parquet objects too, into the same tables.
    pub(crate) fn with_formats(&self) {
        let folder = self.folder.join("connectors");
        for dataset in sluice_loadtest::Dataset::OBJECTS {
            let text = std::fs::read_to_string(folder.join(format!("{dataset}.yaml"))).expect("it was written");
            let text = without_rollups(&text);
            for format in [FileFormat::Csv, FileFormat::Parquet] {
                let name = format.connector(*dataset);
                let text = [
                    (format!("name: {dataset}\n"), format!("name: {name}\n")),
                    (format!("prefix: {dataset}/"), format!("prefix: {name}/")),
                    ("format: json".to_owned(), format!("format: {}", format.extension())),
                ]
                .iter()
                .fold(text.clone(), |text, (from, to)| {
                    assert_eq!(text.matches(from).count(), 1, "{from} stands once in {dataset}.yaml");
                    text.replace(from, to)
                });
                std::fs::write(folder.join(format!("{name}.yaml")), text).expect("the folder is ours");
            }
        }
    }
}

/// A rollup is declared once, whatever else fills its fact: the part `load` is left out.
fn without_rollups(text: &str) -> String {
    let mut is_within = false;
    let lines = text.lines().filter(|line| {
        is_within = *line == "load:" || (is_within && line.starts_with(' '));
        !is_within
    });
    lines.map(|line| format!("{line}\n")).collect()
}
