-- Called by: publish, after the copy was verified. Locks: the file row.
-- Hits no row where the micro-batch was replaced, or the file rewritten, meanwhile: the copy must go again.
UPDATE catalog.file f SET state = 'published', published_at = now(), lease_until = NULL
  FROM catalog.micro_batch b
 WHERE f.file_id = $1 AND b.micro_batch_id = f.micro_batch_id AND b.state = 'live' AND f.state IN ('pending', 'published')
   AND f.published_key = $2 AND NOT f.is_rewritten
