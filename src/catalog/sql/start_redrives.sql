-- Called by: the owner of a topic partition, before it reads overrides and messages. Locks: the requests' rows.
UPDATE catalog.redrive SET state = 'running', start_count = start_count + 1
 WHERE redrive_id = ANY ($1::bigint[]) AND state <> 'finished'
