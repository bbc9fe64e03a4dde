-- Called by: commit. Locks: the new rows, in the order of their keys; who commits the same schema at once waits.
INSERT INTO catalog.schema_version (connector, declared_revision, schema_revision, fields, micro_batch_id)
SELECT s.connector, s.declared_revision, s.schema_revision, s.fields, $1
  FROM unnest($2::text[], $3::text[], $4::text[], $5::jsonb[])
       AS s (connector, declared_revision, schema_revision, fields)
 ORDER BY s.connector, s.declared_revision, s.schema_revision
    ON CONFLICT (connector, declared_revision, schema_revision) DO NOTHING
