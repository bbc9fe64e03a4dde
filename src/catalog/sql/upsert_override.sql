-- Called by: `sluice dead-letters edit`. Locks: the override's row.
-- An edit anew is another override: its id is new, its tries begin at 0.
INSERT INTO catalog.override (source_partition_id, message_offset, record, row_number, bytes, edited_by)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (source_partition_id, message_offset, coalesce(record, -1), coalesce(row_number, -1))
DO UPDATE SET override_id = DEFAULT, bytes = excluded.bytes, edited_by = excluded.edited_by, edited_at = now(),
              try_count = 0, fault = NULL
