-- Called by: commit, for the live micro-batches whose masks changed. Locks: their rows, in the order of their ids.
-- They are published again, and loaded again where they were to be loaded.
UPDATE catalog.micro_batch b
   SET mask_rev = mask_rev + 1, loaded_at = NULL, load_lease_until = NULL
  FROM (SELECT micro_batch_id FROM catalog.micro_batch
         WHERE micro_batch_id = ANY ($1::uuid[]) AND state = 'live' ORDER BY micro_batch_id FOR UPDATE) touched
 WHERE b.micro_batch_id = touched.micro_batch_id
