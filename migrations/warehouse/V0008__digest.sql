-- What a micro-batch's rows are, in sixteen bytes: a replay that makes the same ones sees it without comparing them.
-- Called by: `sluice migrate`. Locks: load_state and schema_info, for a moment.
-- Binaries that know nothing of it leave it null, and their rows are compared one by one: compatible_from stays.

UPDATE warehouse.schema_info SET version = 8;

ALTER TABLE warehouse.load_state ADD COLUMN digest bytea CHECK (octet_length(digest) = 16);
COMMENT ON COLUMN warehouse.load_state.digest IS
    'of all rows of the micro-batch, in any order; null where masks or names decided about some of them, or an older version loaded it';
