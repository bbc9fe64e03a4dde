-- Called by: load::seal and `sluice status`. Locks: none.
-- $1: facts, or null for all. A partition without a row here was made by an older binary: it is hot.
SELECT f.relname::text AS fact, c.relname::text AS name, coalesce(p.state, 'hot') AS state,
       coalesce(p.reason, 'nobody has looked at it yet') AS reason, p.changed_at,
       CASE WHEN c.relname ~ '_p[0-9]{8}$' THEN to_date(right(c.relname, 8), 'YYYYMMDD') END AS day
  FROM pg_catalog.pg_inherits i
  JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
  JOIN pg_catalog.pg_class f ON f.oid = i.inhparent
  JOIN pg_catalog.pg_namespace n ON n.oid = f.relnamespace
  LEFT JOIN warehouse.table_partition p ON p.name = c.relname
 WHERE n.nspname = 'warehouse' AND f.relkind = 'p' AND ($1::text[] IS NULL OR f.relname = ANY ($1))
 ORDER BY f.relname, c.relname
