-- Called by: load::warehouse_table, once at start. Locks: none.
SELECT c.relname::text AS table_name,
       CASE WHEN p.partstrat = 'r' AND p.partnatts = 1 THEN a.attname::text END AS range_column
  FROM pg_catalog.pg_partitioned_table p
  JOIN pg_catalog.pg_class c ON c.oid = p.partrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0]
 WHERE n.nspname = $1 AND c.relname = ANY($2::text[])
