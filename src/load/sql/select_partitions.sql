-- Called by: load::days, before and after the days are locked, and load::rollups. Locks: none.
SELECT c.relname::text
  FROM pg_catalog.pg_inherits i
  JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = $1::text::regclass
