//! The lake as another reader sees it: DuckDB, which shares no code with Sluice.

use std::path::PathBuf;
use std::process::Command;

use sluice_loadtest::Endpoints;

/// What DuckDB finds of the transactions.
#[derive(Debug)]
pub(crate) struct Sums {
    /// Rows that are the newest of their key.
    pub(crate) newest_rows: i64,
    pub(crate) newest_amount: String,
    pub(crate) partitions: Vec<String>,
}

const SCRIPT: &str = r"
import sys, duckdb
folder = sys.argv[1]
rows = duckdb.sql(f'''
    SELECT count(*), sum(amount)::VARCHAR FROM (
        SELECT DISTINCT ON (transaction_id, occurred_at) amount
          FROM read_parquet('{folder}/**/*.parquet', hive_partitioning = true)
         ORDER BY transaction_id, occurred_at, updated_at DESC)''').fetchone()
print(rows[0], rows[1])
";

/// Reads `data/transactions/` of the lake as DuckDB does from a folder of downloaded files.
pub(crate) fn transactions(endpoints: &Endpoints) -> Sums {
    let folder = std::env::temp_dir().join(format!("sluice-reader-{}", uuid::Uuid::new_v4().simple()));
    let partitions = tokio::task::block_in_place(|| {
        tokio::runtime::Handle::current().block_on(download(endpoints, "data/transactions/", &folder))
    });
    let output = Command::new(python())
        .args(["-c", SCRIPT])
        .arg(&folder)
        .output()
        .expect("the reader is installed by `compose/native install --reader`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (rows, amount) = text.trim().split_once(' ').expect("two values");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    Sums { newest_rows: rows.parse().expect("a count"), newest_amount: amount.to_owned(), partitions }
}

fn python() -> PathBuf {
    std::env::var_os("SLUICE_TEST_PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

async fn download(endpoints: &Endpoints, prefix: &str, folder: &std::path::Path) -> Vec<String> {
    let client = endpoints.lake.client();
    let mut pages = client.list_objects_v2().bucket(&endpoints.lake_bucket).prefix(prefix).into_paginator().send();
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.expect("the lake answers");
        keys.extend(page.contents().iter().filter_map(|object| object.key().map(ToOwned::to_owned)));
    }
    for key in &keys {
        let object = client.get_object().bucket(&endpoints.lake_bucket).key(key).send().await.expect("listed");
        let path = folder.join(key);
        std::fs::create_dir_all(path.parent().expect("a key with a folder")).expect("the folder is ours");
        std::fs::write(path, object.body.collect().await.expect("whole").into_bytes()).expect("the folder is ours");
    }
    assert!(!keys.is_empty(), "nothing was published");
    keys
}
