-- Called by: catalog::claims, before objects are read. Locks: none: the commit decides.
SELECT asked.number, claim.version
  FROM unnest($3::int[], $4::text[], $5::text[], $6::text[], $7::uuid[])
       AS asked (number, bucket, key, version, replaced)
       -- one look into the primary key for each, whatever the planner thinks of arrays
 CROSS JOIN LATERAL (
       SELECT found.version, found.micro_batch_id FROM catalog.object_claim found
        WHERE found.cluster_id = $1 AND found.consumer_group = $2
          AND found.bucket = asked.bucket AND found.key = asked.key AND found.version = asked.version
        LIMIT 1) claim
   -- what a replay is about to replace does not hold it back
 WHERE asked.replaced IS NULL OR claim.micro_batch_id <> asked.replaced
