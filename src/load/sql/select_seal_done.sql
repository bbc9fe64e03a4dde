-- Called by: load::seal. Locks: none.
-- Which indexes of the partition $1 are whole, which are the remains of a build that broke off, and which foreign keys are there.
SELECT c.relname::text AS name, CASE WHEN i.indisvalid THEN 'index' ELSE 'broken' END AS kind
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = $1::text::regclass
UNION ALL
SELECT conname::text, CASE WHEN convalidated THEN 'checked' ELSE 'unchecked' END
  FROM pg_catalog.pg_constraint WHERE conrelid = $1::text::regclass AND contype = 'f'
