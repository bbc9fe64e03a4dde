-- Called by: commit. Locks: the claims, in the order given (sorted by the caller by bucket, key, version).
-- A claim that another micro-batch holds is left out: a short count means roll back and rebuild (CLAIM-1).
-- Waits for a concurrent transaction that inserts the same claim.
INSERT INTO catalog.object_claim
    (cluster_id, consumer_group, bucket, key, version, micro_batch_id, message_offset, record, connector,
     outcome, etag, last_modified, size_bytes, announced_at, overwrite)
SELECT $1, $2, c.bucket, c.key, c.version, $3, c.message_offset, c.record, c.connector,
       c.outcome, c.etag, c.last_modified, c.size_bytes, c.announced_at, c.overwrite
  FROM unnest($4::text[], $5::text[], $6::text[], $7::bigint[], $8::integer[], $9::text[],
              $10::text[], $11::text[], $12::timestamptz[], $13::bigint[], $14::timestamptz[], $15::text[])
       WITH ORDINALITY AS c (bucket, key, version, message_offset, record, connector,
                             outcome, etag, last_modified, size_bytes, announced_at, overwrite, position)
 ORDER BY c.position
ON CONFLICT DO NOTHING
RETURNING message_offset, record
