-- Called by: rewriting, after the new copy is complete. Locks: the file row.
-- Hits no row where another worker was faster, or the micro-batch was replaced.
-- $6 where the file as committed lies; $1 file, $2 mask_rev, $3 published key, $4 state, $5 visible rows (null: as committed, not rewritten)
UPDATE catalog.file f
   SET mask_rev = $2::integer, published_key = $3::text, pending_key = $6::text, state = $4::text,
       visible_row_count = $5::bigint, is_rewritten = $5::bigint IS NOT NULL,
       published_at = CASE WHEN $4::text = 'published' THEN now() ELSE published_at END, lease_until = NULL
  FROM catalog.micro_batch b
 WHERE f.file_id = $1 AND b.micro_batch_id = f.micro_batch_id AND b.state = 'live' AND f.mask_rev < $2::integer
