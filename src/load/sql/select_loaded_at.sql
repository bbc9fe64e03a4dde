-- Called by: the demo's summary. Locks: none.
SELECT micro_batch_id, loaded_at FROM warehouse.load_state
