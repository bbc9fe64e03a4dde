-- Called by: load::days, under the advisory lock of the fact's days. Locks: none.
SELECT c.relname::text
  FROM pg_catalog.pg_inherits i
  JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = $1::text::regclass
