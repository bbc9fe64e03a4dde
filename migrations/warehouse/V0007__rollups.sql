-- Rollups: aggregates of facts by hour or day, declared by connectors, each in a table warehouse.rollup_… that the loader makes.
-- Called by: `sluice migrate`. Locks: creates only, and the schema_info row.
-- Binaries that know no rollups would load facts and leave them as they are.

UPDATE warehouse.schema_info SET version = 7, compatible_from = 7;

-- Every load of a fact keeps what stands here, whatever its own connectors declare: processes with an older configuration too.
CREATE TABLE warehouse.rollup (
    name       text PRIMARY KEY,
    fact       text NOT NULL,
    definition jsonb NOT NULL,
    built_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE warehouse.rollup IS 'the aggregates of facts that every load keeps; one row for each table rollup_…';
COMMENT ON COLUMN warehouse.rollup.name IS 'its table, without the schema';
COMMENT ON COLUMN warehouse.rollup.fact IS 'the fact that it is made of';
COMMENT ON COLUMN warehouse.rollup.definition IS 'what its rows and columns are; where a connector declares another, the loader makes it anew';
COMMENT ON COLUMN warehouse.rollup.built_at IS 'when it was last made anew from the fact';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'sluice_loader') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON warehouse.rollup TO sluice_loader;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'sluice_reader') THEN
        GRANT SELECT ON warehouse.rollup TO sluice_reader;
    END IF;
END $$;
