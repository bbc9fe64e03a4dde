-- Called by: publish. Locks: the leased rows, for this statement; rows locked by another worker are passed over.
-- Files of dead micro-batches whose offsets are covered by live ones that are published: first the new is shown,
-- then the old is hidden (FILE-2), so that a listing reader sees the rows all the time.
UPDATE catalog.file
   SET lease_until = now() + $2 * interval '1 second'
 WHERE file_id IN (
        SELECT f.file_id FROM catalog.file f JOIN catalog.micro_batch b USING (micro_batch_id)
         WHERE f.state <> 'hidden' AND b.state = 'dead'
           AND (f.lease_until IS NULL OR f.lease_until < now())
           AND NOT EXISTS (SELECT FROM catalog.micro_batch l JOIN catalog.file lf USING (micro_batch_id)
                            WHERE l.source_partition_id = b.source_partition_id AND l.state = 'live'
                              AND l.offsets && b.offsets AND lf.state = 'pending')
         ORDER BY f.file_id LIMIT $1 FOR UPDATE OF f SKIP LOCKED)
RETURNING file_id, kind, pending_key, published_key, size_bytes, sha256
