-- Called by: rewriting. Locks: the leased rows, for this statement; rows locked by another worker are passed over.
UPDATE catalog.file u
   SET lease_until = now() + $2 * interval '1 second'
 WHERE u.file_id IN (
        SELECT f.file_id FROM catalog.file f JOIN catalog.micro_batch b USING (micro_batch_id)
         WHERE b.state = 'live' AND f.state <> 'hidden' AND b.mask_rev > 0 AND f.mask_rev < b.mask_rev
           AND (f.lease_until IS NULL OR f.lease_until < now())
         ORDER BY f.file_id LIMIT $1 FOR UPDATE OF f SKIP LOCKED)
RETURNING u.file_id, u.micro_batch_id, u.kind, u.connector, u.connector_revision, u.schema_revision, u.table_partition,
          u.pending_key, u.published_key, u.state, u.size_bytes, u.sha256, u.mask_rev, u.is_rewritten
