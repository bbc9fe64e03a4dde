-- Called by: commit, after the compare-and-swap, before claims are touched. Locks: advisory, 64 slots of object keys,
-- in ascending order, until the transaction ends. Whoever changes which versions of a key are claimed sees what others
-- have claimed. Slots, not keys: a micro-batch may have more keys than a server has room for locks.
-- $1 lock class, $2 and $3 buckets and keys of the new claims, $4 micro-batches whose claims go.
SELECT pg_advisory_xact_lock($1, slot)
  FROM (SELECT DISTINCT (hashtextextended(bucket || E'\x01' || key, 0) & 63)::integer AS slot
          FROM (SELECT bucket, key FROM unnest($2::text[], $3::text[]) AS k (bucket, key)
                UNION ALL
                SELECT bucket, key FROM catalog.object_claim WHERE micro_batch_id = ANY ($4::uuid[])) keys
         ORDER BY slot) slots
