-- Called by: publish. Locks: the leased rows, for this statement; rows locked by another worker are passed over.
-- A lease that runs out is taken by anybody: publishing again is safe.
UPDATE catalog.file
   SET lease_until = now() + $2 * interval '1 second'
 WHERE file_id IN (
        SELECT f.file_id FROM catalog.file f JOIN catalog.micro_batch b USING (micro_batch_id)
         WHERE f.state = 'pending' AND b.state = 'live'
           -- else it is rewritten at once
           AND f.mask_rev = b.mask_rev
           AND (f.lease_until IS NULL OR f.lease_until < now())
         ORDER BY f.file_id LIMIT $1 FOR UPDATE OF f SKIP LOCKED)
RETURNING file_id, kind, pending_key, published_key, size_bytes, sha256
