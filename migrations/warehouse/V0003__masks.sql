-- Masks: rows of an object that another version of it outranks are not loaded, or retracted.
-- Called by: `sluice migrate`. Locks: load_state and schema_info, for a moment.
-- Binaries that know no masks would load masked rows.

UPDATE warehouse.schema_info SET version = 3, compatible_from = 3;

-- The masks that the loaded rows reflect: catalog.micro_batch.mask_rev.
ALTER TABLE warehouse.load_state ADD COLUMN mask_rev integer NOT NULL DEFAULT 0;
