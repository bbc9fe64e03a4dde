-- Called by: publish, after the copy was verified. Locks: the file row.
UPDATE catalog.file SET state = 'published', published_at = now(), lease_until = NULL
 WHERE file_id = $1 AND state = 'pending'
