//! Masks: which rows of an object are hidden because another version of it outranks them. A mask names the claim that
//! outranks it and dies with it; every commit that changes the claims of a key sets the masks of that key anew.

use std::collections::HashSet;

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::{BatchFile, CatalogError, PartitionKey};
use crate::types::{MicroBatchId, ObjectClaim, ObjectLocation};

/// Class of the advisory locks of object keys: the letters `objk`.
const KEY_LOCK_CLASS: i32 = 0x6f62_6a6b;

/// A live micro-batch as loaders and publishers must treat it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveBatch {
    /// Grows with each change of its masks.
    pub mask_rev: i32,
    /// Offsets and records whose rows are hidden.
    pub masked: HashSet<(i64, i32)>,
}

/// Keys whose versions a commit changes, and micro-batches whose masks it has changed so far.
#[derive(Debug, Default)]
pub struct TouchedKeys {
    keys: HashSet<ObjectLocation>,
    batches: HashSet<Uuid>,
}

/// Shuts out other commits that change versions of the same keys: of `claims`, and of the micro-batches `replaced`.
pub async fn lock_object_keys(
    client: &impl GenericClient,
    claims: &[ObjectClaim],
    replaced: &[MicroBatchId],
) -> Result<TouchedKeys, CatalogError> {
    let failed = || CatalogError::query("lock the keys of objects");
    let mut touched = TouchedKeys::default();
    touched.keys.extend(claims.iter().map(|claim| claim.version.location.clone()));
    let ids: Vec<Uuid> = replaced.iter().map(|id| id.0).collect();
    let (buckets, keys) = touched.columns();
    client
        .execute(include_str!("sql/lock_object_keys.sql"), &[&KEY_LOCK_CLASS, &buckets, &keys, &ids])
        .await
        .map_err(failed())?;
    if !ids.is_empty() {
        for row in client.query(include_str!("sql/select_masked_by.sql"), &[&ids]).await.map_err(failed())? {
            touched.keys.insert(ObjectLocation { bucket: row.get("bucket"), key: row.get("key") });
            touched.batches.extend(row.get::<_, Option<Uuid>>("masked_batch"));
        }
    }
    Ok(touched)
}

impl TouchedKeys {
    fn columns(&self) -> (Vec<String>, Vec<String>) {
        self.keys.iter().map(|location| (location.bucket.clone(), location.key.clone())).unzip()
    }
}

/// The touched keys of which several versions are claimed in an order that is not known.
pub async fn unordered_keys(
    client: &impl GenericClient,
    key: &PartitionKey,
    touched: &TouchedKeys,
) -> Result<Vec<ObjectLocation>, CatalogError> {
    let (buckets, keys) = touched.columns();
    let rows = client
        .query(include_str!("sql/select_unordered_keys.sql"), &[&key.cluster_id, &key.consumer_group, &buckets, &keys])
        .await
        .map_err(CatalogError::query("look for versions of unknown order"))?;
    Ok(rows.iter().map(|row| ObjectLocation { bucket: row.get(0), key: row.get(1) }).collect())
}

/// Notes the order of the versions of an object, the oldest first, as the store lists them.
pub async fn order_versions(
    client: &impl GenericClient,
    key: &PartitionKey,
    location: &ObjectLocation,
    versions: &[String],
) -> Result<(), CatalogError> {
    client
        .execute(
            include_str!("sql/order_versions.sql"),
            &[&key.cluster_id, &key.consumer_group, &location.bucket, &location.key, &versions],
        )
        .await
        .map_err(CatalogError::query("note the order of versions"))?;
    Ok(())
}

/// Sets the masks of the touched keys; micro-batches whose masks changed are to be published and loaded again.
pub async fn set_masks(
    client: &impl GenericClient,
    key: &PartitionKey,
    touched: TouchedKeys,
) -> Result<(), CatalogError> {
    let failed = || CatalogError::query("mask outranked versions of objects");
    let (buckets, keys) = touched.columns();
    let mut batches = touched.batches;
    for statement in [include_str!("sql/upsert_masks.sql"), include_str!("sql/delete_masks.sql")] {
        let rows =
            client.query(statement, &[&key.cluster_id, &key.consumer_group, &buckets, &keys]).await.map_err(failed())?;
        batches.extend(rows.iter().map(|row| row.get::<_, Uuid>(0)));
    }
    if !batches.is_empty() {
        let batches: Vec<Uuid> = batches.into_iter().collect();
        client.execute(include_str!("sql/touch_masked.sql"), &[&batches]).await.map_err(failed())?;
    }
    Ok(())
}

/// `None`: it is not live.
pub async fn live_batch(client: &impl GenericClient, id: MicroBatchId) -> Result<Option<LiveBatch>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_live_batch.sql"), &[&id.0])
        .await
        .map_err(CatalogError::query("read the state of a micro-batch"))?;
    let Some(first) = rows.first() else { return Ok(None) };
    let masked = rows.iter().filter_map(|row| Some((row.get::<_, Option<i64>>(1)?, row.get::<_, Option<i32>>(2)?)));
    Ok(Some(LiveBatch { mask_rev: first.get(0), masked: masked.collect() }))
}

/// A file whose published copy reflects older masks.
#[derive(Debug, Clone)]
pub struct MaskableFile {
    pub file: BatchFile,
    pub micro_batch_id: MicroBatchId,
    pub connector_revision: String,
    pub schema_revision: String,
    /// `pending`, `published` or `masked`.
    pub state: String,
}

/// Up to `count` such files that nobody else is rewriting.
pub async fn lease_maskable_files(
    client: &impl GenericClient,
    count: i64,
    lease_seconds: f64,
) -> Result<Vec<MaskableFile>, CatalogError> {
    let rows = client
        .query(include_str!("sql/lease_maskable_files.sql"), &[&count, &lease_seconds])
        .await
        .map_err(CatalogError::query("lease files to rewrite"))?;
    let file = |row: &tokio_postgres::Row| MaskableFile {
        file: BatchFile::of(row),
        micro_batch_id: MicroBatchId(row.get("micro_batch_id")),
        connector_revision: row.get("connector_revision"),
        schema_revision: row.get("schema_revision"),
        state: row.get("state"),
    };
    Ok(rows.iter().map(file).collect())
}

/// How a file stands after rewriting.
#[derive(Debug, Clone)]
pub struct Rewritten {
    pub mask_rev: i32,
    pub published_key: String,
    /// Where the file as it was committed lies.
    pub original_key: String,
    pub state: &'static str,
    /// `None`: it holds what was committed.
    pub visible_row_count: Option<i64>,
}

/// `false`: another worker was faster, or the micro-batch was replaced.
pub async fn mark_rewritten(
    client: &impl GenericClient,
    file_id: Uuid,
    rewritten: &Rewritten,
) -> Result<bool, CatalogError> {
    let Rewritten { mask_rev, published_key, original_key, state, visible_row_count } = rewritten;
    let changed = client
        .execute(
            include_str!("sql/mark_rewritten.sql"),
            &[&file_id, &mask_rev, &published_key, &state, &visible_row_count, &original_key],
        )
        .await
        .map_err(CatalogError::query("mark a file rewritten"))?;
    Ok(changed == 1)
}

/// Where the catalog publishes a file now; `None`: nowhere.
pub async fn published_key(client: &impl GenericClient, file_id: Uuid) -> Result<Option<String>, CatalogError> {
    let row = client
        .query_opt("SELECT published_key FROM catalog.file WHERE file_id = $1 AND state = 'published'", &[&file_id])
        .await
        .map_err(CatalogError::query("read where a file is published"))?;
    Ok(row.map(|row| row.get(0)))
}
