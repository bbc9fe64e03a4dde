-- Called by: status and the gauge sluice_books_unbalanced. Locks: none. 0 unless a guard was taken away.
-- $1: look only at micro-batches committed in the last so many seconds (null: all).
SELECT count(*) FROM catalog.books k JOIN catalog.micro_batch b USING (micro_batch_id)
 WHERE NOT k.balanced AND ($1::float8 IS NULL OR b.committed_at > now() - $1 * interval '1 second')
