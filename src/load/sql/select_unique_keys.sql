-- Called by: load::warehouse_table, once at start. Locks: none.
-- Unique keys over plain columns, whole tables and at once: those that ON CONFLICT can name.
SELECT c.relname::text AS table_name,
       array_agg(a.attname::text) AS columns
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, position)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
 WHERE n.nspname = $1 AND c.relname = ANY($2::text[])
   AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
   AND k.position <= i.indnkeyatts
 GROUP BY c.relname, i.indexrelid
