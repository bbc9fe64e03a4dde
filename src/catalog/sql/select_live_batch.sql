-- Called by: the loader, under the warehouse's shard locks, and rewriting. Locks: none.
-- No row: the micro-batch is not live. Else one for each mask, or one with nulls.
SELECT b.mask_rev, m.message_offset, m.record
  FROM catalog.micro_batch b LEFT JOIN catalog.mask m USING (micro_batch_id)
 WHERE b.micro_batch_id = $1 AND b.state = 'live'
