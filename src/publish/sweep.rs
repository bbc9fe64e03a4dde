//! Removes what lies where readers look without being published: copies that a frozen publisher made after its
//! micro-batch was replaced, and files of commits that a catalog restored from a backup does not know.
//!
//! # Contract
//! A file is swept only where its own mark says that this catalog's processes wrote it (the lake may have other
//! owners) and the catalog, asked after the listing, has no file of that name that readers may see. A file's row is
//! always older than its copy, so nothing on its way is swept; but a rewritten copy is complete before the catalog
//! names it, so those are left alone for [`REWRITING_TIME`].

use std::sync::Arc;

use chrono::{TimeDelta, Utc};

use super::{PublishError, Publisher};
use crate::catalog::{self, CatalogError};
use crate::client::postgres;
use crate::telemetry::metrics;

const REWRITING_TIME: TimeDelta = TimeDelta::hours(1);
const PREFIXES: [&str; 2] = ["data/", "dead-letters/"];

impl Publisher {
    /// Looks through the whole lake once; returns how many files went.
    pub async fn sweep(self: &Arc<Self>) -> Result<usize, PublishError> {
        let mut swept = 0;
        for prefix in PREFIXES {
            let mut next = None;
            loop {
                let page = self.lake.list_page(&self.lake_bucket, prefix, next).await.map_err(PublishError::List)?;
                let too_young = Utc::now() - REWRITING_TIME;
                let objects = page.objects.into_iter();
                let objects = objects.filter(|object| !is_rewritten(&object.key) || object.last_modified < too_young);
                let keys: Vec<String> = objects.map(|object| object.key).collect();
                let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
                let unpublished = catalog::unpublished_keys(&client, &keys).await?;
                drop(client);
                for key in unpublished {
                    swept += usize::from(self.sweep_one(&key).await?);
                }
                next = page.next;
                if next.is_none() {
                    break;
                }
            }
        }
        Ok(swept)
    }

    async fn sweep_one(&self, key: &str) -> Result<bool, PublishError> {
        if !self.lake.is_owned(&self.lake_bucket, key).await.map_err(PublishError::Verify)? {
            return Ok(false);
        }
        tracing::warn!(component = "publish", key, "file is listed but not published, swept");
        self.delete_all(std::iter::once(key)).await?;
        metrics().files_swept.with_label_values::<&str>(&[]).inc();
        Ok(true)
    }
}

/// `…-m3.parquet`
fn is_rewritten(key: &str) -> bool {
    let number = key.strip_suffix(".parquet").and_then(|stem| stem.rsplit_once("-m"));
    number.is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}
