-- What data made of a connector's schema.
-- Called by: `sluice migrate`. Locks: none beyond the table it creates.
-- Binaries that know nothing of it go on as before: they do not let schemas grow.

UPDATE catalog.schema_info SET version = 7;

-- One row for each schema that rows were committed with, besides the declared one. The union of those with one
-- declared schema is what is known of a connector: they only grow.
CREATE TABLE catalog.schema_version (
    connector         text  NOT NULL,
    -- of the connector as its file declares it
    declared_revision text  NOT NULL,
    schema_revision   text  NOT NULL,
    -- [{"name": …, "type": …}, …], all columns in their order
    fields            jsonb NOT NULL,
    -- the micro-batch that used it first; it may be replaced since
    micro_batch_id    uuid  NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (connector, declared_revision, schema_revision)
);
