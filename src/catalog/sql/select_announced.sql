-- Called by: the demo's summary, for the time from announcement to row. Locks: none.
SELECT micro_batch_id, announced_at FROM catalog.object_claim WHERE outcome = 'emitted'
