-- Called by: load, after its locks are taken; at start. Locks: none.
SELECT fact FROM warehouse.key_map WHERE fact = ANY ($1)
