//! The rows that are loaded, made from their number alone, as files of the lake hold them.

use std::sync::Arc;

use anyhow::Context;
use arrow::array::{
    ArrayRef, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use chrono::{DateTime, NaiveDate};
use sluice::config::{Connector, UTC};

/// 2026-11-23T00:00:00Z
pub(super) const DAY_MILLIS: i64 = 1_795_392_000_000;
const DAY: i64 = 86_400_000;
/// Of a micro-batch's rows so many in a hundred are newer versions of rows that the one before brought.
const CHANGED_PERCENT: usize = 5;
/// Changed rows lie so far apart in the micro-batch before.
const CHANGED_STEP: usize = 7;

/// One version of one sale.
#[derive(Clone, Copy)]
struct Sale {
    number: u64,
    version: i64,
}

impl Sale {
    /// Splitmix64: neighbours look nothing like each other, as random keys do.
    fn noise(self, salt: u64) -> u64 {
        let mut z = (self.number ^ salt.wrapping_mul(0xd6e8_feb8_6659_fd93)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn id(self) -> String {
        let bytes = (u128::from(self.noise(1)) << 64 | u128::from(self.noise(2))).to_be_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// On the day of that number.
    fn occurred_at(self, day: i64) -> i64 {
        DAY_MILLIS + day * DAY + (self.noise(3) % DAY.unsigned_abs()) as i64
    }

    fn attributes(self) -> String {
        let (campaign, device) = (self.noise(4) % 50, ["ios", "android", "web"][(self.noise(5) % 3) as usize]);
        format!(r#"{{"campaign":"c-{campaign}","device":"{device}","clicks":{}}}"#, self.noise(6) % 20)
    }
}

/// Which rows micro-batches have.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) batch_rows: usize,
    /// So many micro-batches are of one day, the next ones of the day after it, from the first day on, counted from [`DAY_MILLIS`].
    pub(super) batches_per_day: usize,
    pub(super) first_day: i64,
    /// Whether some rows are newer versions of earlier ones.
    pub(super) with_changes: bool,
    /// Number of the first sale.
    pub(super) first: u64,
}

impl Layout {
    fn sales(&self, batch: usize) -> Vec<Sale> {
        let first = self.first as usize + batch * self.batch_rows;
        let changed = if self.with_changes { self.batch_rows * CHANGED_PERCENT / 100 } else { 0 };
        let sale = |n: usize| {
            if n < changed && batch > 0 {
                Sale { number: (first - self.batch_rows + changed + n * CHANGED_STEP) as u64, version: 1 }
            } else {
                Sale { number: (first + n) as u64, version: 0 }
            }
        };
        (0..self.batch_rows).map(sale).collect()
    }

    fn day(&self, batch: usize) -> i64 {
        self.first_day + (batch / self.batches_per_day) as i64
    }

    /// First and last day of a micro-batch's rows.
    pub(super) fn days_of(&self, batch: usize) -> Option<(NaiveDate, NaiveDate)> {
        let day = DateTime::from_timestamp_millis(DAY_MILLIS + self.day(batch) * DAY)?.date_naive();
        Some((day, day))
    }

    /// Micro-batch `batch`, whose one message is at that offset.
    pub(super) fn rows(&self, connector: &Connector, batch: usize) -> anyhow::Result<RecordBatch> {
        let (sales, day) = (self.sales(batch), self.day(batch));
        let texts = |text: &dyn Fn(&Sale) -> String| {
            Arc::new(StringArray::from_iter_values(sales.iter().map(text))) as ArrayRef
        };
        let times = |time: &dyn Fn(&Sale) -> i64| {
            let times: Vec<i64> = sales.iter().map(time).collect();
            Arc::new(TimestampMillisecondArray::from(times).with_timezone(UTC)) as ArrayRef
        };
        let column = |name: &str| -> anyhow::Result<ArrayRef> {
            Ok(match name {
                "sale_id" => texts(&|sale| sale.id()),
                "user_id" => texts(&|sale| format!("user-{}", sale.noise(7) % 100_000)),
                "product_id" => texts(&|sale| format!("product-{}", sale.noise(8) % 20_000)),
                "store_id" => texts(&|sale| format!("store-{}", sale.noise(9) % 500)),
                "currency" => texts(&|sale| ["EUR", "USD", "GBP"][(sale.noise(10) % 3) as usize].to_owned()),
                "source" => texts(&|sale| ["web", "app"][(sale.noise(11) % 2) as usize].to_owned()),
                "attributes" => texts(&|sale| sale.attributes()),
                "amount" => {
                    let amounts =
                        sales.iter().map(|sale| i128::from(sale.noise(12) % 100_000) + 100 + i128::from(sale.version));
                    Arc::new(Decimal128Array::from_iter_values(amounts).with_precision_and_scale(12, 2)?)
                }
                "quantity" => {
                    Arc::new(Int32Array::from_iter_values(sales.iter().map(|sale| (sale.noise(13) % 9) as i32 + 1)))
                }
                "occurred_at" => times(&|sale| sale.occurred_at(day)),
                "updated_at" => times(&|sale| sale.occurred_at(day) + sale.version * 1000),
                "_origin_time" => times(&|_| DAY_MILLIS),
                "_offset" => Arc::new(Int64Array::from_value(batch as i64, sales.len())),
                "_record" => Arc::new(Int32Array::from_value(0, sales.len())),
                "_row" => Arc::new(Int64Array::from_iter_values(0..sales.len() as i64)),
                "_topic_partition" => texts(&|_| "raw-notifications/0".to_owned()),
                "_batch" => texts(&|_| batch.to_string()),
                other => anyhow::bail!("nobody makes column {other}"),
            })
        };
        let schema = connector.lake_schema();
        let columns = schema.fields().iter().map(|field| column(field.name())).collect::<Result<_, _>>()?;
        RecordBatch::try_new(schema, columns).context("rows do not fit the connector")
    }
}
