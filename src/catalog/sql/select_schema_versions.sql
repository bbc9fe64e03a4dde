-- Called by: pipeline, when a topic partition is taken over. Locks: none.
SELECT v.connector, v.fields
  FROM catalog.schema_version v
  JOIN unnest($1::text[], $2::text[]) AS wanted (connector, declared_revision)
    ON wanted.connector = v.connector AND wanted.declared_revision = v.declared_revision
