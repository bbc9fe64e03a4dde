-- Called by: the owner of a topic partition, every few seconds. Locks: none; the owner alone takes requests up.
-- Each with the micro-batch that is live now in the place of the one that was asked for; null where none is.
WITH RECURSIVE followed AS (
    SELECT r.redrive_id, b.micro_batch_id, b.state, b.superseded_by, b.offsets
      FROM catalog.redrive r JOIN catalog.micro_batch b USING (micro_batch_id)
     WHERE r.source_partition_id = $1 AND r.state <> 'finished'
    UNION ALL
    SELECT f.redrive_id, b.micro_batch_id, b.state, b.superseded_by, b.offsets
      FROM followed f JOIN catalog.micro_batch b ON b.micro_batch_id = f.superseded_by
)
SELECT r.redrive_id, r.start_count, l.micro_batch_id, lower(l.offsets) AS first, upper(l.offsets) AS next
  FROM catalog.redrive r
  LEFT JOIN followed l ON l.redrive_id = r.redrive_id AND l.state = 'live'
 WHERE r.source_partition_id = $1 AND r.state <> 'finished'
 ORDER BY r.redrive_id
