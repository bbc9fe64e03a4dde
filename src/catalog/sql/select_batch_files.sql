-- Called by: the loader and replays, to read a micro-batch's files. Locks: none.
-- Of a live micro-batch only files that a compaction has replaced are hidden.
SELECT file_id, kind, connector, table_partition, pending_key, published_key, state, is_rewritten, size_bytes, sha256
  FROM catalog.file WHERE micro_batch_id = $1 AND state <> 'hidden' ORDER BY file_id
