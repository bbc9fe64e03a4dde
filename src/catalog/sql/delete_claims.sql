-- Called by: commit, for the micro-batches it replaces. Locks: the claims. Their masks die with them.
DELETE FROM catalog.object_claim WHERE micro_batch_id = ANY ($1)
