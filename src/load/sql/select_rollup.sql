-- Called by: load::rollups, under the shards of the fact. Locks: none.
SELECT definition::text AS definition FROM warehouse.rollup WHERE name = $1
