-- Called by: `sluice doctor`. Locks: none.
-- Bytes of a row with its share of all indexes, of facts with partitions that the server has statistics of.
SELECT f.relname::text AS fact, (sum(pg_total_relation_size(c.oid)) / sum(c.reltuples))::float8 AS row_bytes
  FROM pg_catalog.pg_inherits i
  JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
  JOIN pg_catalog.pg_class f ON f.oid = i.inhparent
 WHERE f.relnamespace = 'warehouse'::regnamespace AND f.relkind = 'p' AND c.reltuples > 0
 GROUP BY f.relname
