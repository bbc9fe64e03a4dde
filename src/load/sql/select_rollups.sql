-- Called by: load, after its locks are taken; at start; by `sluice doctor`. Locks: none.
-- $1: facts, or null for all. By name: the order in which loads lock their cells.
SELECT name, definition::text AS definition FROM warehouse.rollup WHERE $1::text[] IS NULL OR fact = ANY ($1) ORDER BY name
