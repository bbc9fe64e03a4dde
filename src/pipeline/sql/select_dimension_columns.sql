-- Called by: pipeline::joined_tables, before each reading of a dimension. Locks: none.
-- Shows only columns this user may read.
SELECT attname::text AS column_name,
       format_type(atttypid, NULL) AS type_name
  FROM pg_attribute
 WHERE attrelid = to_regclass('warehouse.' || quote_ident($1))
   AND attnum > 0
   AND NOT attisdropped
   AND has_column_privilege(attrelid, attnum, 'SELECT')
