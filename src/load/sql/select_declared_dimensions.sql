-- Called by: load, where days of the facts $1 are made whole, behind the shards. Locks: none.
-- Tables of the warehouse that the facts themselves declare foreign keys to; most declare them on sealed partitions alone.
SELECT DISTINCT d.relname::text
  FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_class d ON d.oid = k.confrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = d.relnamespace
 WHERE k.contype = 'f' AND n.nspname = 'warehouse' AND k.conrelid = ANY ($1::text[]::regclass[])
