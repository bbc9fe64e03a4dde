-- Called by: the loader, while it loads. Locks: the leased rows, for this statement; one that somebody else holds is left out, since a
-- lease is but a hint and whoever waits for two rows may meet a commit that holds one of them.
UPDATE catalog.micro_batch SET load_lease_until = now() + $2 * interval '1 second'
 WHERE micro_batch_id IN (SELECT micro_batch_id FROM catalog.micro_batch
                           WHERE micro_batch_id = ANY ($1) AND loaded_at IS NULL FOR UPDATE SKIP LOCKED)
