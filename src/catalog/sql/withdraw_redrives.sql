-- Called by: the owner of a topic partition, where a server did not answer in time. Locks: the requests' rows.
UPDATE catalog.redrive SET start_count = start_count - 1
 WHERE redrive_id = ANY ($1::bigint[]) AND state <> 'finished' AND start_count > 0
