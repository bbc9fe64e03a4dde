-- Called by: load, before any row is prepared, to save the work. Locks: none; insert_load_state.sql decides.
SELECT EXISTS (SELECT FROM warehouse.load_state WHERE micro_batch_id = $1 AND mask_rev >= $2 AND NOT stale)
