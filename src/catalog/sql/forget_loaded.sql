-- Called by: `sluice replay reload`, after mark_stale.sql in the warehouse. Locks: the micro_batch rows.
-- loaded_at is a hint: a loader takes the micro-batches up again and finds them stale.
UPDATE catalog.micro_batch SET needs_load = true, loaded_at = NULL, load_lease_until = NULL
 WHERE micro_batch_id = ANY ($1) AND state = 'live'
