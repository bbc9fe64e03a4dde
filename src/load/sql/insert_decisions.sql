-- Called by: load, in the transaction that writes the rows, after the shards are locked. Locks: the rows written.
-- The first decision wins: one that is there already stays. Sorted, so that loaders wait and never deadlock.
INSERT INTO warehouse.resolution_decision (dimension, spelling, natural_key, verdict, proposed_key, margin, features,
                                           candidates, scheme_version, index_version, micro_batch_id)
SELECT p.dimension, p.spelling, p.natural_key, p.verdict, p.proposed_key, p.margin, p.features,
       p.candidates, p.scheme_version, p.index_version, $2::uuid
  FROM jsonb_to_recordset($1::jsonb) AS p (dimension text, spelling text, natural_key text, verdict text,
       proposed_key text, margin real, features jsonb, candidates jsonb, scheme_version integer, index_version text)
 ORDER BY p.dimension, p.spelling
ON CONFLICT (dimension, spelling) DO NOTHING
