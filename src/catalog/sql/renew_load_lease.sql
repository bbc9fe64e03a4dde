-- Called by: the loader, while it loads. Locks: the leased rows, for this statement.
UPDATE catalog.micro_batch SET load_lease_until = now() + $2 * interval '1 second'
 WHERE micro_batch_id = ANY ($1) AND loaded_at IS NULL
