-- Called by: load::history, in the transaction that makes the table. Locks: the row written.
INSERT INTO warehouse.dimension_history (dimension, definition) VALUES ($1, $2::text::jsonb)
ON CONFLICT (dimension) DO UPDATE SET definition = excluded.definition, built_at = clock_timestamp()
