-- Called by: load, after the dimensions are locked; at start; by `sluice demo`. Locks: none.
-- $1: dimensions, or null for all. By name.
SELECT dimension, definition::text AS definition FROM warehouse.dimension_history
 WHERE $1::text[] IS NULL OR dimension = ANY ($1) ORDER BY dimension
