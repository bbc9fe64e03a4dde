-- Called by: `sluice dead-letters redrive`. Locks: none besides the new rows.
-- A micro-batch that is waited for already is left out. $1 request, $2 micro-batches, $3 who.
INSERT INTO catalog.redrive (request_id, source_partition_id, micro_batch_id, requested_by)
SELECT $1, b.source_partition_id, b.micro_batch_id, $3
  FROM catalog.micro_batch b WHERE b.micro_batch_id = ANY ($2::uuid[]) AND b.state = 'live'
ON CONFLICT (micro_batch_id) WHERE state = 'waiting' DO NOTHING
