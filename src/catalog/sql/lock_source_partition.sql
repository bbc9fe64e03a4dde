-- Called by: commit, first statement of the one transaction. Locks: the source_partition row, first in
-- the lock order (source_partition, then claims sorted). Waits for another owner's commit in flight.
SELECT fence, next_offset FROM catalog.source_partition WHERE source_partition_id = $1 FOR UPDATE
