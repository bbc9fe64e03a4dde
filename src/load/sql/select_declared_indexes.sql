-- Called by: load::bulk. Locks: none.
-- The indexes of the fact $1: the constraint where one stands behind it, whether it is unique, and its definition from USING on. Left to
-- the server, which makes them when a partition is attached: those whose definition does not say all.
SELECT pg_get_constraintdef(k.oid) AS constraint_definition, i.indisunique AS is_unique,
       substr(d.text, 1 + length(d.head)) AS index_definition
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
  JOIN pg_catalog.pg_class f ON f.oid = i.indrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = f.relnamespace
  LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
 CROSS JOIN LATERAL (SELECT pg_get_indexdef(i.indexrelid) AS text,
                            format('CREATE %sINDEX %I ON ONLY %I.%I ', CASE WHEN i.indisunique THEN 'UNIQUE ' END,
                                   x.relname, n.nspname, f.relname) AS head) d
 WHERE i.indrelid = $1::text::regclass AND starts_with(d.text, d.head)
   AND x.reltablespace = 0 AND (k.oid IS NULL OR x.reloptions IS NULL)
 ORDER BY i.indexrelid
