-- Masks: which rows of an object are hidden because another version of it outranks them.
-- Called by: `sluice migrate`. Locks: the tables it changes, exclusively, for a moment.
-- Binaries that know no masks would load and publish masked rows.

UPDATE catalog.schema_info SET version = 3, compatible_from = 3;

-- replace: of an object's versions the newest stands; reject: the oldest; append: all of them.
ALTER TABLE catalog.object_claim ADD COLUMN overwrite text NOT NULL DEFAULT 'append'
    CHECK (overwrite IN ('replace', 'append', 'reject'));
ALTER TABLE catalog.object_claim ALTER COLUMN overwrite DROP DEFAULT;

-- Place among the versions of the key, as the store lists them; greater is newer. Null: only one version is claimed, or
-- the bucket keeps no versions.
ALTER TABLE catalog.object_claim ADD COLUMN store_order bigint;

-- Grows with each change of a micro-batch's masks: loaders and publishers compare it with what they have done.
ALTER TABLE catalog.micro_batch ADD COLUMN mask_rev integer NOT NULL DEFAULT 0;

CREATE INDEX micro_batch_masked ON catalog.micro_batch (micro_batch_id) WHERE mask_rev > 0 AND state = 'live';

-- The masks that the published copy reflects. From 1 on that copy is a rewritten one, and the file as it was
-- committed is kept at its pending key, for the day when a mask dies.
ALTER TABLE catalog.file ADD COLUMN mask_rev integer NOT NULL DEFAULT 0;
ALTER TABLE catalog.file ADD COLUMN is_rewritten boolean NOT NULL DEFAULT false;
-- Rows of the published copy; null: all.
ALTER TABLE catalog.file ADD COLUMN visible_row_count bigint CHECK (visible_row_count >= 0);
ALTER TABLE catalog.file DROP CONSTRAINT file_state_check;
-- masked: no row is visible, nothing is published.
ALTER TABLE catalog.file ADD CONSTRAINT file_state_check CHECK (state IN ('pending', 'published', 'masked', 'hidden'));

-- What exact readers read: the files of live batches, wherever they lie right now. Where `has_masks`, the file still
-- holds masked rows: leave out those that lake.masked_rows names.
DROP VIEW lake.files;
CREATE VIEW lake.files AS
SELECT f.file_id, f.kind, f.dataset, f.table_partition, f.state,
       CASE f.state WHEN 'published' THEN f.published_key ELSE f.pending_key END AS key,
       coalesce(f.visible_row_count, f.row_count) AS row_count, f.size_bytes, f.event_time_min, f.event_time_max,
       f.connector, f.connector_revision, f.schema_revision,
       f.micro_batch_id, p.topic, p.topic_partition, b.offsets, b.committed_at,
       f.kind = 'data' AND f.mask_rev < b.mask_rev AS has_masks
  FROM catalog.file f
  JOIN catalog.micro_batch b USING (micro_batch_id)
  JOIN catalog.source_partition p USING (source_partition_id)
 WHERE b.state = 'live' AND f.state IN ('pending', 'published');

CREATE VIEW lake.masked_rows AS
SELECT m.micro_batch_id, m.message_offset AS _offset, m.record AS _record
  FROM catalog.mask m JOIN catalog.micro_batch b USING (micro_batch_id) WHERE b.state = 'live';
