//! What was broken, how often, and what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{Table, presets};
use sluice_loadtest::{FindingKind, VerifyReport};

use crate::fault::Fault;

/// A world with its faults, settled and verified.
pub(crate) struct WorldReport {
    pub(crate) seed: u64,
    /// Each fault that was tried, and whether it happened.
    pub(crate) faults: Vec<(Fault, bool)>,
    pub(crate) objects: u64,
    /// Commits refused because a newer owner existed.
    pub(crate) fenced: usize,
    pub(crate) unbalanced: i64,
    pub(crate) verified: VerifyReport,
    pub(crate) elapsed: Duration,
}

impl WorldReport {
    pub(crate) fn injected(&self) -> usize {
        self.faults.iter().filter(|(_, happened)| *happened).count()
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.verified.is_clean() && self.unbalanced == 0
    }
}

#[derive(Default)]
struct Row {
    injected: usize,
    missed: usize,
    seeds: Vec<String>,
    findings: [usize; FindingKind::ALL.len()],
}

/// One line a kind. Findings belong to a world: they stand at every kind that was injected there.
pub(crate) fn table(worlds: &[WorldReport]) -> String {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for world in worlds {
        for (fault, happened) in &world.faults {
            let row = rows.entry(fault.to_string()).or_default();
            row.injected += usize::from(*happened);
            row.missed += usize::from(!happened);
            let seed = world.seed.to_string();
            if *happened && !row.seeds.contains(&seed) {
                row.seeds.push(seed);
                for (sum, kind) in row.findings.iter_mut().zip(FindingKind::ALL) {
                    *sum += world.verified.count(*kind);
                }
            }
        }
    }
    let mut table = Table::new();
    let kinds = FindingKind::ALL.iter().map(|kind| kind.as_str());
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["fault", "injected", "did not happen", "seeds"].into_iter().chain(kinds));
    for (fault, row) in rows {
        let numbers = [row.injected.to_string(), row.missed.to_string(), row.seeds.join(" ")];
        table.add_row([fault].into_iter().chain(numbers).chain(row.findings.map(|count| count.to_string())));
    }
    let sum = |count: fn(&WorldReport) -> usize| worlds.iter().map(count).sum::<usize>();
    format!(
        "{table}\n{} faults in {} worlds and {} s; {} objects, {} rows, {} commits refused; {} findings, {} unbalanced\n",
        sum(WorldReport::injected),
        worlds.len(),
        worlds.iter().map(|world| world.elapsed).sum::<Duration>().as_secs(),
        sum(|world| world.objects as usize),
        sum(|world| world.verified.rows as usize),
        sum(|world| world.fenced),
        sum(|world| world.verified.findings.len()),
        sum(|world| world.unbalanced as usize),
    )
}
