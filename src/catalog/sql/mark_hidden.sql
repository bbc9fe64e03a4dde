-- Called by: publish, after both copies are deleted. Locks: the file rows.
UPDATE catalog.file SET state = 'hidden', lease_until = NULL WHERE file_id = ANY ($1) AND state <> 'hidden'
