-- Called by: publish, after the copies were verified. Locks: the file rows, in the order of their ids.
-- Gives none back where the micro-batch was replaced, or the file rewritten, meanwhile: the copy must go again.
WITH locked AS (
    SELECT f.file_id
      FROM unnest($1::uuid[], $2::text[]) AS copied (file_id, published_key)
      JOIN catalog.file f USING (file_id, published_key)
      JOIN catalog.micro_batch b USING (micro_batch_id)
     WHERE b.state = 'live' AND f.state IN ('pending', 'published') AND NOT f.is_rewritten
     ORDER BY f.file_id FOR UPDATE OF f)
UPDATE catalog.file f SET state = 'published', published_at = now(), lease_until = NULL
  FROM catalog.micro_batch b
 WHERE f.file_id IN (SELECT file_id FROM locked) AND b.micro_batch_id = f.micro_batch_id AND b.state = 'live'
   AND f.state IN ('pending', 'published') AND NOT f.is_rewritten
RETURNING f.file_id
