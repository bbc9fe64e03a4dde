-- Called by: the loader, after the warehouse committed. Locks: the micro_batch row.
-- Hits no row where its masks changed meanwhile.
UPDATE catalog.micro_batch SET loaded_at = now(), load_lease_until = NULL WHERE micro_batch_id = $1 AND mask_rev = $2
