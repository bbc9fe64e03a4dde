//! A whole object of rows in a format, with the fate of each row.

use anyhow::Result;
use chrono::{DateTime, SecondsFormat};
use serde_json::Value;

use super::dirty;
use super::rows::Entity;
use super::{Compression, Dataset, Fate, Generator, Next};
use crate::canonical::bytes_hash;
use crate::formats::{FileFormat, ParquetRows, push_csv};

impl Generator {
    /// The bytes of an object, and what must become of its rows, in order. JSON and CSV are not compressed yet; of
    /// Parquet the pages are. Unknown fields come in JSON alone.
    pub fn object(
        &mut self,
        dataset: Dataset,
        format: FileFormat,
        compression: Compression,
        rows: usize,
    ) -> Result<(Vec<u8>, Vec<Fate>)> {
        Ok(match format {
            FileFormat::Json => self.json_lines(dataset, rows),
            FileFormat::Csv => self.csv(dataset, rows),
            FileFormat::Parquet => self.parquet(dataset, compression, rows)?,
        })
    }

    fn json_lines(&mut self, dataset: Dataset, rows: usize) -> (Vec<u8>, Vec<Fate>) {
        let mut body = Vec::new();
        let fates = (0..rows).map(|_| {
            let row = self.row(dataset);
            body.extend(row.line);
            body.push(b'\n');
            row.fate
        });
        let fates = fates.collect();
        (body, fates)
    }

    fn csv(&mut self, dataset: Dataset, rows: usize) -> (Vec<u8>, Vec<Fate>) {
        let header = [dataset.columns().join(",").as_bytes(), b"\n"].concat();
        let mut body = header.clone();
        let mut fates = Vec::with_capacity(rows);
        for _ in 0..rows {
            let (record, fate) = match self.next(dataset) {
                Next::Clean(entity) => (csv_record(&entity), entity.known().row(dataset).fate),
                Next::Dirty(entity) => {
                    let (record, reason) = dirty::spoil_csv(&mut self.rng, dataset, &entity);
                    // a dead letter holds what corrects it: the row and its header
                    let bytes_hash = bytes_hash(&[header.as_slice(), &record].concat());
                    (record, Fate::Reject { reason: reason.to_owned(), bytes_hash })
                }
            };
            body.extend(record);
            body.push(b'\n');
            fates.push(fate);
        }
        (body, fates)
    }

    fn parquet(&mut self, dataset: Dataset, compression: Compression, rows: usize) -> Result<(Vec<u8>, Vec<Fate>)> {
        let (mut body, mut fates) = (Vec::new(), Vec::with_capacity(rows));
        let mut out = ParquetRows::new(&mut body, dataset.columns(), compression, true)?;
        for _ in 0..rows {
            let (values, fate) = match self.next(dataset) {
                Next::Clean(entity) => (typed(&entity), entity.known().row(dataset).fate),
                Next::Dirty(entity) => {
                    let (spoilt, reason) = dirty::spoil_typed(&mut self.rng, dataset, &entity);
                    let values = typed(&spoilt);
                    let bytes_hash = bytes_hash(spelt(dataset, &values).as_bytes());
                    (values, Fate::Reject { reason: reason.to_owned(), bytes_hash })
                }
            };
            out.push(values.iter().map(Option::as_ref))?;
            fates.push(fate);
        }
        out.finish()?;
        Ok((body, fates))
    }
}

/// Without its line end.
pub(super) fn csv_record(entity: &Entity) -> Vec<u8> {
    let mut line = String::new();
    for (index, field) in entity.fields.iter().enumerate() {
        if index > 0 {
            line.push(',');
        }
        push_csv(&mut line, field.written.as_ref());
    }
    line.into_bytes()
}

/// As typed columns hold them: amounts as numbers, times as RFC 3339; null where nothing is written.
fn typed(entity: &Entity) -> Vec<Option<Value>> {
    let value = |field: &super::rows::FieldValue| {
        let written = field.written.clone().filter(|value| !value.is_null())?;
        let arrives = || field.arrives.as_deref().expect("what is written arrives");
        Some(match field.name {
            "amount" | "price" => serde_json::from_str(arrives()).expect("plain digits are JSON"),
            "occurred_at" | "updated_at" => {
                Value::from(super::rows::rfc3339(arrives().parse().expect("milliseconds arrive")))
            }
            _ => written,
        })
    };
    entity.fields.iter().map(value).collect()
}

/// How a dead letter spells a row of Parquet: the JSON object of its columns, decimals without zeros at their end, times
/// with as many digits of a second as they need.
fn spelt(dataset: Dataset, values: &[Option<Value>]) -> String {
    let fields = dataset.columns().iter().zip(values).map(|(name, value)| {
        let text = match (*name, value) {
            (_, None) => "null".to_owned(),
            ("amount" | "price", Some(amount)) => {
                let text = amount.to_string();
                let whole = text.strip_suffix(".0").map(ToOwned::to_owned);
                whole.unwrap_or_else(|| if text.contains('.') { text.trim_end_matches('0').to_owned() } else { text })
            }
            ("occurred_at" | "updated_at", Some(time)) => {
                let time = DateTime::parse_from_rfc3339(time.as_str().unwrap_or_default());
                let time = time.expect("written above").to_utc();
                format!("\"{}\"", time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
            }
            // in the order of the struct's fields
            ("attributes", Some(object)) => format!(r#"{{"channel":{},"gift":{}}}"#, object["channel"], object["gift"]),
            ("properties", Some(object)) => format!(r#"{{"page":{},"ms":{}}}"#, object["page"], object["ms"]),
            (_, Some(value)) => value.to_string(),
        };
        format!("\"{name}\":{text}")
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Mix;

    fn generator() -> Generator {
        let base_time_ms = 1_760_000_000_000;
        Generator::new(5, Mix { dirty_share: 0.2, duplicate_share: 0.1, late_share: 0.0, base_time_ms, hours: 4 })
    }

    #[test]
    fn every_format_has_as_many_fates_as_rows_of_all_kinds() {
        for format in FileFormat::ALL {
            for dataset in Dataset::OBJECTS {
                let mut generator = generator();
                let (body, fates) =
                    generator.object(*dataset, *format, Compression::Zstd, 3_000).expect("rows can be written");
                assert_eq!(fates.len(), 3_000);
                let mut reasons: Vec<&str> = Vec::new();
                for fate in &fates {
                    if let Fate::Reject { reason, .. } = fate {
                        reasons.push(reason);
                    }
                }
                reasons.sort_unstable();
                reasons.dedup();
                assert!(reasons.len() >= 2 && fates.iter().any(|fate| matches!(fate, Fate::Pass(_))), "{reasons:?}");
                if *format == FileFormat::Parquet {
                    let file = bytes::Bytes::from(body);
                    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file);
                    assert_eq!(reader.expect("Parquet").metadata().file_metadata().num_rows(), 3_000);
                } else {
                    let header = usize::from(*format == FileFormat::Csv);
                    assert_eq!(memchr::memchr_iter(b'\n', &body).count(), 3_000 + header);
                }
            }
        }
    }

    #[test]
    fn a_row_of_parquet_is_spelt_without_zeros_to_spare() {
        let mut generator = generator();
        let entity = generator.entity(Dataset::Products);
        let mut values = typed(&entity);
        for (amount, text) in [("12.00", "12"), ("12.50", "12.5"), ("0.05", "0.05"), ("100.00", "100"), ("0", "0")] {
            values[4] = Some(serde_json::from_str(amount).expect("a number"));
            let spelt = spelt(Dataset::Products, &values);
            assert!(spelt.contains(&format!("\"price\":{text},")), "{spelt}");
        }
    }
}
