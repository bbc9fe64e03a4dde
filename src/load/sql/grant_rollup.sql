-- Called by: load::rollups, load::history and load::key_map, in the transaction that makes the table $1. Roles belong to the server: those that are not there get nothing.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'sluice_loader') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON $1 TO sluice_loader;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'sluice_reader') THEN
        GRANT SELECT ON $1 TO sluice_reader;
    END IF;
END $$;
