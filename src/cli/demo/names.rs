//! The second part of the demo: sales of a partner who knows products by their names.
//!
//! Eight products and a sale of each spelling in [`SALES`]. What the names must find is known: a sale that points elsewhere
//! is a finding.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use deadpool_postgres::Pool;
use serde_json::{Value, json};
use sluice_loadtest::{Endpoints, PutPlan, put_files};

use crate::client::postgres;
use crate::config::Settings;

const BUCKET: &str = "raw";
const TOPIC: &str = "raw-notifications";
/// The embedded store announces nothing by itself.
const ANNOUNCE_WAIT: Duration = Duration::from_millis(100);

const PRODUCTS: &[(&str, &str)] = &[
    ("demo-1", "Sony Turntable - PSLX350H"),
    ("demo-2", "Bose Acoustimass 5 Speaker System - AM53BK"),
    ("demo-3", "Wooden garden chair"),
    ("demo-4", "Apple iPod Nano 4GB Silver"),
    ("demo-5", "Logitech Wireless Keyboard"),
    ("demo-6", "Kitchen Aid Stand Mixer"),
];

/// A partner's name, and what it must find: a product, or one that resembles it, or none.
const SALES: &[(&str, Expected)] = &[
    ("SONY PS-LX350H belt drive turntable", Expected::Resolved("demo-1")),
    ("wooden  GARDEN chair!", Expected::Resolved("demo-3")),
    ("Bose AM53BK acoustimass 5", Expected::Resolved("demo-2")),
    ("Apple iPod Nano 16GB Silver", Expected::Review),
    ("Xylophone", Expected::New),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Resolved(&'static str),
    Review,
    New,
}

/// Puts the products, which must be loaded before the sales are put.
pub(super) async fn put_products(endpoints: &Endpoints, folder: &Path) -> anyhow::Result<()> {
    let rows = PRODUCTS.iter().map(|(product_id, name)| {
        json!({"product_id": product_id, "name": name, "source": "partner", "updated_at": "2026-11-23T10:00:00Z"})
    });
    put(endpoints, folder, "products", rows).await
}

pub(super) async fn put_sales(endpoints: &Endpoints, folder: &Path) -> anyhow::Result<()> {
    let rows = (1..).zip(SALES).map(|(number, (name, _))| {
        json!({
            "transaction_id": id(number), "product_name": name, "amount": 10 * number, "quantity": 1,
            "occurred_at": "2026-11-23T10:30:00Z", "updated_at": "2026-11-23T10:30:00Z"
        })
    });
    put(endpoints, folder, "partner-sales", rows).await
}

fn id(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

async fn put(
    endpoints: &Endpoints,
    folder: &Path,
    dataset: &str,
    rows: impl Iterator<Item = Value>,
) -> anyhow::Result<()> {
    let folder = folder.join("partner").join(dataset);
    std::fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
    let lines: String = rows.map(|row| format!("{row}\n")).collect();
    std::fs::write(folder.join("partner.json"), lines)?;
    let plan = PutPlan {
        folder,
        bucket: BUCKET.to_owned(),
        prefix: format!("{dataset}/partner/"),
        concurrency: 1,
        announced_on: TOPIC.to_owned(),
        announce_wait: ANNOUNCE_WAIT,
        remove: false,
    };
    put_files(endpoints, &plan).await?;
    Ok(())
}

/// What became of the names.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) resolved: usize,
    pub(super) review: usize,
    pub(super) new: usize,
    /// Sales that are not what they must be.
    pub(super) findings: Vec<String>,
}

/// Of the sales, once nothing is in flight.
pub(super) async fn look(settings: &Settings) -> anyhow::Result<Named> {
    let warehouse: Pool = postgres::pool(&settings.warehouse, "demo")?;
    let client = postgres::get(&warehouse).await?;
    let sql = "SELECT f.transaction_id::text, p.product_id, p.inferred, d.verdict \
               FROM warehouse.fact_transactions f \
               JOIN warehouse.dim_products p USING (product_key) \
               LEFT JOIN warehouse.resolution_decision d ON d.dimension = 'products' AND d.natural_key = p.product_id \
               WHERE f.transaction_id::text LIKE '00000000-0000-4000-8000-%'";
    let mut sales = BTreeMap::new();
    for row in client.query(sql, &[]).await? {
        let (id, product, is_inferred, verdict): (String, String, bool, Option<String>) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        sales.insert(id, (product, is_inferred, verdict.unwrap_or_default()));
    }
    let mut named = Named::default();
    for (number, (name, expected)) in (1..).zip(SALES) {
        let found = match sales.get(&id(number)) {
            Some((product, false, verdict)) if verdict == "automatic" => {
                named.resolved += 1;
                PRODUCTS.iter().find(|(id, _)| id == product).map(|(id, _)| Expected::Resolved(id))
            }
            Some((_, true, verdict)) if verdict == "review" => {
                named.review += 1;
                Some(Expected::Review)
            }
            Some((_, true, verdict)) if verdict == "new" => {
                named.new += 1;
                Some(Expected::New)
            }
            _ => None,
        };
        if found != Some(*expected) {
            named
                .findings
                .push(format!("the sale of `{name}` must be {expected:?}, and is {:?}", sales.get(&id(number))));
        }
    }
    Ok(named)
}
