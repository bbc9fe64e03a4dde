-- Called by: load::warehouse_table, once at start. Locks: none.
-- Shows only columns this user has a privilege on.
SELECT table_name::text AS table_name,
       column_name::text AS column_name,
       udt_name::text AS type_name,
       is_nullable = 'YES' AS nullable,
       column_default IS NOT NULL OR is_identity = 'YES' OR is_generated = 'ALWAYS' AS has_default,
       numeric_precision::integer AS numeric_precision,
       numeric_scale::integer AS numeric_scale,
       character_maximum_length::integer AS text_length_max
  FROM information_schema.columns
 WHERE table_schema = $1 AND table_name = ANY($2::text[])
