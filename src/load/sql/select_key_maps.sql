-- Called by: load, after the shards are locked; at start. Locks: none.
SELECT fact FROM warehouse.key_map WHERE fact = ANY ($1)
