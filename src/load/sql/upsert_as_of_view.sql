-- Called by: load::history, before it makes the view; no row: it is there so. Locks: the row written.
INSERT INTO warehouse.as_of_view AS v (name, fact, dimensions, definition) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET fact = excluded.fact, dimensions = excluded.dimensions, definition = excluded.definition
 WHERE v.definition <> excluded.definition
RETURNING v.xmax = 0 AS is_new
