-- Called by: commit, in the transaction that moves the position to the end of the replay. Locks: the replay row.
UPDATE catalog.replay SET ended_at = now(), ended_as = 'finished'
 WHERE source_partition_id = $1 AND ended_at IS NULL AND until_offset <= $2
