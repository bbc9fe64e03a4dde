//! What was produced, and what each row of it must become: one zstd-compressed JSON-lines file a run.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::generate::{Dataset, Fate};

/// An object, or a batch of direct records, with its rows in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub dataset: Dataset,
    /// `s3://bucket/key`, or the topic of direct records.
    pub place: String,
    pub rows: Vec<Fate>,
}

/// Writes a run's ledger next to those of other runs: complete or not at all.
pub fn write(folder: &Path, run: &str, entries: &[Entry]) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    let path = folder.join(format!("{run}.jsonl.zst"));
    let unfinished = folder.join(format!(".{run}.unfinished"));
    let file = File::create(&unfinished).with_context(|| format!("could not create {}", unfinished.display()))?;
    let mut writer = zstd::Encoder::new(BufWriter::new(file), 1)?;
    for entry in entries {
        serde_json::to_writer(&mut writer, entry)?;
        writer.write_all(b"\n")?;
    }
    writer.finish()?.flush()?;
    fs::rename(&unfinished, &path).with_context(|| format!("could not write {}", path.display()))?;
    Ok(path)
}

/// Reads the ledgers of all runs.
pub fn read(folder: &Path) -> Result<Vec<Entry>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("there is no ledger at {}: run `produce` first", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.to_string_lossy().ends_with(".jsonl.zst"))
        .collect();
    paths.sort();
    let mut entries = Vec::new();
    for path in paths {
        let file = File::open(&path).with_context(|| format!("could not open {}", path.display()))?;
        for line in BufReader::new(zstd::Decoder::new(file)?).lines() {
            let entry = serde_json::from_str(&line?).with_context(|| format!("{} is damaged", path.display()))?;
            entries.push(entry);
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Generator, Mix};

    #[test]
    fn runs_add_up_and_read_back() {
        let folder = std::env::temp_dir().join(format!("sluice-ledger-{}", uuid::Uuid::new_v4()));
        let mix =
            Mix { dirty_share: 0.2, duplicate_share: 0.1, late_share: 0.0, base_time_ms: 1_760_000_000_000, hours: 48 };
        let mut generator = Generator::new(3, mix);
        let mut entry = |place: &str| Entry {
            dataset: Dataset::Users,
            place: place.into(),
            rows: (0..50).map(|_| generator.row(Dataset::Users).fate).collect(),
        };
        let (first, second) = (entry("s3://raw/a"), entry("s3://raw/b"));
        write(&folder, "run-1", std::slice::from_ref(&first)).expect("the folder is ours");
        write(&folder, "run-2", std::slice::from_ref(&second)).expect("the folder is ours");
        assert_eq!(read(&folder).expect("both runs read back"), [first, second]);
        fs::remove_dir_all(&folder).expect("the folder is ours");
    }
}
