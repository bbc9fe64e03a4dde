-- Called by: `sluice dead-letters redrive --wait`. Locks: none.
-- What became of these micro-batches' newest requests.
SELECT DISTINCT ON (micro_batch_id) micro_batch_id, state, outcome, detail
  FROM catalog.redrive WHERE micro_batch_id = ANY ($1::uuid[]) ORDER BY micro_batch_id, redrive_id DESC
