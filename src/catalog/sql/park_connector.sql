-- Called by: an owner whose connector fails, `connectors park`. Locks: the new row.
-- The first reason stands.
INSERT INTO catalog.parked_connector (consumer_group, connector, reason, parked_by)
VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
