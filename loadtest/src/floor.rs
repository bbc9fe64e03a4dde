//! What staging cannot do without: reading the files, finding their lines, compressing the pages.
//!
//! # Contract
//! One thread. Counted are the CPU-seconds, user and system, of plain reads of every file with a search for newlines,
//! and of compressing at zstd level 1 the very pages of given Parquet files. Reading those files and
//! unpacking their pages is not counted. Nothing is written.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use parquet::basic::Compression;
use parquet::column::page::Page;
use parquet::file::reader::{FileReader, SerializedFileReader};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Stays in a core's second-level cache.
const READ_BYTES: usize = 256 << 10;
const ZSTD_LEVEL: i32 = 1;

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Floor {
    pub files: u64,
    pub bytes_in: u64,
    pub lines: u64,
    pub parquet_files: u64,
    pub pages: u64,
    pub page_bytes: u64,
    pub compressed_bytes: u64,
    pub read_cpu_seconds: f64,
    pub compress_cpu_seconds: f64,
    pub cpu_seconds: f64,
    pub seconds: f64,
}

/// `input`: folder of the raw files. `staged`: folder below which the Parquet files lie; files in hidden
/// folders and other files are passed over in both.
pub fn measure(input: &Path, staged: &Path) -> Result<Floor> {
    let (raw, parquet) =
        (files(input, |name| name != "expected.json")?, files(staged, |name| name.ends_with(".parquet"))?);
    ensure!(!raw.is_empty(), "no files in {}", input.display());
    ensure!(!parquet.is_empty(), "no Parquet files below {}", staged.display());
    let mut floor = Floor { files: raw.len() as u64, parquet_files: parquet.len() as u64, ..Floor::default() };
    let (cpu, wall) = (cpu_seconds(), Instant::now());
    let mut buffer = vec![0; READ_BYTES];
    for path in &raw {
        read(path, &mut buffer, &mut floor).with_context(|| format!("could not read {}", path.display()))?;
    }
    floor.read_cpu_seconds = cpu_seconds() - cpu;
    floor.seconds = wall.elapsed().as_secs_f64();
    let mut compressor = Compressor { zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL)?, packed: Vec::new() };
    for path in &parquet {
        let pages = pages(path).with_context(|| format!("could not unpack {}", path.display()))?;
        compressor.compress(&pages, &mut floor)?;
    }
    floor.cpu_seconds = floor.read_cpu_seconds + floor.compress_cpu_seconds;
    Ok(floor)
}

/// Of the thread that asks.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn files(folder: &Path, is_wanted: impl Fn(&str) -> bool + Copy) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, is_wanted)?);
        } else if is_wanted(&name) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path, buffer: &mut [u8], floor: &mut Floor) -> Result<()> {
    let mut file = File::open(path)?;
    loop {
        let count = file.read(buffer)?;
        if count == 0 {
            return Ok(());
        }
        floor.bytes_in += count as u64;
        floor.lines += memchr::memchr_iter(b'\n', &buffer[..count]).count() as u64;
    }
}

/// The compressed parts of a file's pages, unpacked.
fn pages(path: &Path) -> Result<Vec<Vec<u8>>> {
    let reader = SerializedFileReader::new(File::open(path)?)?;
    let mut pages = Vec::new();
    for index in 0..reader.num_row_groups() {
        let group = reader.get_row_group(index)?;
        for column in 0..group.num_columns() {
            if !matches!(group.metadata().column(column).compression(), Compression::ZSTD(_)) {
                continue;
            }
            let mut column = group.get_column_page_reader(column)?;
            while let Some(page) = column.get_next_page()? {
                pages.push(match page {
                    // version 2 leaves its levels out of the compression
                    Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, .. } => {
                        buf[(def_levels_byte_len + rep_levels_byte_len) as usize..].to_vec()
                    }
                    page => page.buffer().to_vec(),
                });
            }
        }
    }
    Ok(pages)
}

struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    /// Used again for every page.
    packed: Vec<u8>,
}

impl Compressor {
    fn compress(&mut self, pages: &[Vec<u8>], floor: &mut Floor) -> Result<()> {
        let largest = pages.iter().map(Vec::len).max().unwrap_or(0);
        let bound = zstd::zstd_safe::compress_bound(largest);
        if self.packed.len() < bound {
            self.packed.resize(bound, 0);
        }
        let (cpu, wall) = (cpu_seconds(), Instant::now());
        for page in pages {
            floor.compressed_bytes += self.zstd.compress_to_buffer(page, self.packed.as_mut_slice())? as u64;
        }
        floor.compress_cpu_seconds += cpu_seconds() - cpu;
        floor.seconds += wall.elapsed().as_secs_f64();
        floor.pages += pages.len() as u64;
        floor.page_bytes += pages.iter().map(|page| page.len() as u64).sum::<u64>();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::{BulkPlan, generate_files};
    use crate::formats::FileFormat;
    use crate::generate::{Compression, Dataset};

    fn plan(format: FileFormat, compression: Compression) -> BulkPlan {
        BulkPlan {
            dataset: Dataset::Transactions,
            format,
            compression,
            seed: 1,
            size_bytes: 2 << 20,
            object_bytes: 1 << 20,
            row_bytes: 513,
            dirty_share: 0.0,
            duplicate_share: 0.0,
            hours: 24,
            is_clean: false,
        }
    }

    #[test]
    fn every_byte_line_and_page_is_counted() {
        let folder = std::env::temp_dir().join(format!("sluice-floor-{}", uuid::Uuid::new_v4()));
        let (raw, staged) = (folder.join("raw"), folder.join("staged"));
        let json = generate_files(&plan(FileFormat::Json, Compression::None), &raw).expect("the folder is ours");
        let packed = generate_files(&plan(FileFormat::Parquet, Compression::Zstd), &staged).expect("likewise");
        let floor = measure(&raw, &staged).expect("both were written");
        assert_eq!((floor.files, floor.bytes_in, floor.lines), (2, json.bytes, json.rows));
        assert_eq!(floor.parquet_files, 2);
        // headers, footers and statistics are no pages
        assert!(floor.page_bytes <= packed.unpacked_bytes && floor.page_bytes > packed.unpacked_bytes * 9 / 10);
        assert!(floor.compressed_bytes <= packed.bytes && floor.compressed_bytes > packed.bytes * 9 / 10, "{floor:?}");
        assert!(floor.cpu_seconds > 0.0 && floor.cpu_seconds <= floor.seconds * 1.1, "{floor:?}");
        std::fs::remove_dir_all(&folder).expect("the folder is ours");
    }

    #[test]
    fn pages_without_compression_are_not_counted() {
        let folder = std::env::temp_dir().join(format!("sluice-floor-{}", uuid::Uuid::new_v4()));
        generate_files(&plan(FileFormat::Parquet, Compression::None), &folder).expect("the folder is ours");
        let floor = measure(&folder, &folder).expect("it was written");
        assert_eq!((floor.pages, floor.parquet_files), (0, 2));
        std::fs::remove_dir_all(&folder).expect("the folder is ours");
    }
}
