//! What was found, for people and for exit codes.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{Table, presets};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FindingKind {
    Lost,
    Duplicated,
    Phantom,
    Stale,
    Misrejected,
}

impl FindingKind {
    pub const ALL: &[Self] = &[Self::Lost, Self::Duplicated, Self::Phantom, Self::Stale, Self::Misrejected];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Phantom => "phantom",
            Self::Stale => "stale",
            Self::Misrejected => "misrejected",
        }
    }
}

/// One row that is not as it must be. `what` names the row, its object or its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub kind: FindingKind,
    pub what: String,
}

#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    pub findings: Vec<Finding>,
    pub objects: usize,
    pub rows: u64,
    pub rows_passing: u64,
    pub rows_dropped: u64,
    pub rows_staged: u64,
    pub rows_loaded: u64,
    pub files: usize,
    pub dead_letters: BTreeMap<String, u64>,
}

impl VerifyReport {
    /// No finding, and something was produced at all.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.rows > 0
    }

    pub fn count(&self, kind: FindingKind) -> usize {
        self.findings.iter().filter(|finding| finding.kind == kind).count()
    }

    pub(super) fn find(&mut self, kind: FindingKind, what: String) {
        self.findings.push(Finding { kind, what });
    }

    /// `0 lost, 0 duplicated, 0 phantom, 0 stale, 0 misrejected`
    pub fn verdict(&self) -> String {
        let counts: Vec<String> =
            FindingKind::ALL.iter().map(|kind| format!("{} {}", self.count(*kind), kind.as_str())).collect();
        counts.join(", ")
    }

    /// A table, up to `examples` findings, and the verdict as the last line.
    pub fn display(&self, examples: usize) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["", "count"]);
        let mut add = |name: &str, count: String| {
            table.add_row([name.to_owned(), count]);
        };
        add("objects produced", self.objects.to_string());
        add("rows produced", self.rows.to_string());
        add("rows that fit", self.rows_passing.to_string());
        add("rows to drop", self.rows_dropped.to_string());
        add("files in the lake", self.files.to_string());
        add("rows staged", self.rows_staged.to_string());
        add("rows in the warehouse", self.rows_loaded.to_string());
        for (reason, count) in &self.dead_letters {
            add(&format!("dead letters: {reason}"), count.to_string());
        }
        let mut text = format!("{table}\n");
        for finding in self.findings.iter().take(examples) {
            // a String takes everything that is written to it
            let _ = writeln!(text, "{}: {}", finding.kind.as_str(), finding.what);
        }
        if self.findings.len() > examples {
            let _ = writeln!(text, "… and {} more", self.findings.len() - examples);
        }
        if self.rows == 0 {
            text.push_str("the ledger is empty: nothing was verified\n");
        }
        let _ = writeln!(text, "{}", self.verdict());
        text
    }
}
