-- Called by: load, in the transaction that writes the rows. Locks: the row of the fact, until the load commits.
INSERT INTO warehouse.other_time AS o (fact, key_count) VALUES ($1, $2)
ON CONFLICT (fact) DO UPDATE SET key_count = o.key_count + excluded.key_count, last_at = clock_timestamp()
