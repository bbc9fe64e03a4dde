-- Called by: the loader, after the warehouse committed. Locks: the micro_batch row.
UPDATE catalog.micro_batch SET loaded_at = now(), load_lease_until = NULL WHERE micro_batch_id = $1
