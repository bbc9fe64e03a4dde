-- Called by: load::rollups, in the transaction that makes the table. Locks: the row written.
INSERT INTO warehouse.rollup (name, fact, definition) VALUES ($1, $2, $3::text::jsonb)
ON CONFLICT (name) DO UPDATE SET fact = excluded.fact, definition = excluded.definition, built_at = clock_timestamp()
