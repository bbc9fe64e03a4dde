-- Called by: the loader, to read a micro-batch's rows. Locks: none.
SELECT file_id, connector, pending_key, published_key, state, size_bytes, sha256
  FROM catalog.file WHERE micro_batch_id = $1 AND kind = 'data' ORDER BY file_id
