-- Called by: catalog::replay::accept, in the transaction of accept_replay.sql. Locks: none besides the new row.
INSERT INTO catalog.replay (source_partition_id, requested_offset, start_offset, until_offset) VALUES ($1, $2, $3, $4)
