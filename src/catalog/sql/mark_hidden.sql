-- Called by: publish, after both copies are deleted. Locks: the file row.
UPDATE catalog.file SET state = 'hidden', lease_until = NULL WHERE file_id = $1 AND state <> 'hidden'
