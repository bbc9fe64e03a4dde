-- Called by: `sluice resolve review`. Locks: none.
SELECT dimension, spelling, natural_key, proposed_key, margin, features, candidates, decided_at
  FROM warehouse.resolution_decision
 WHERE dimension = $1 AND verdict = 'review' AND answer IS NULL
 ORDER BY decided_at, spelling
 LIMIT $2
