-- Called by: commit of a re-drive (done), and by the owner of a topic partition for any other end.
-- Locks: the requests' rows, after everything else.
UPDATE catalog.redrive SET state = 'finished', outcome = $2, detail = $3, replaced_by = $4, finished_at = now()
 WHERE redrive_id = ANY ($1::bigint[]) AND state <> 'finished'
