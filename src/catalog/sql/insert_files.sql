-- Called by: commit. Locks: none besides the new rows. The objects lie in _pending/ already.
INSERT INTO catalog.file
    (file_id, micro_batch_id, kind, dataset, connector, connector_revision, schema_revision, table_partition,
     pending_key, published_key, row_count, size_bytes, sha256, event_time_min, event_time_max)
SELECT f.file_id, $1, f.kind, f.dataset, f.connector, f.connector_revision, f.schema_revision, f.table_partition,
       f.pending_key, f.published_key, f.row_count, f.size_bytes, f.sha256, f.event_time_min, f.event_time_max
  FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
              $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::bytea[], $14::timestamptz[], $15::timestamptz[])
       AS f (file_id, kind, dataset, connector, connector_revision, schema_revision, table_partition,
             pending_key, published_key, row_count, size_bytes, sha256, event_time_min, event_time_max)
