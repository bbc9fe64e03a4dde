-- Replay: a micro-batch replaces older ones over the same offsets.
-- Called by: `sluice migrate`. Locks: the tables it changes, exclusively, for a moment.
-- Binaries that know nothing of superseding must not meet dead micro-batches and moved positions.

UPDATE catalog.schema_info SET version = 2, compatible_from = 2;

-- The old micro-batches are marked dead before the new one is inserted: the exclusion constraint cannot wait.
ALTER TABLE catalog.micro_batch ALTER CONSTRAINT micro_batch_superseded_by_fkey DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX micro_batch_superseded_by ON catalog.micro_batch (superseded_by) WHERE superseded_by IS NOT NULL;

-- Whether the warehouse must hear of it: it has rows, or replaces a micro-batch of which the warehouse must hear.
ALTER TABLE catalog.micro_batch ADD COLUMN needs_load boolean NOT NULL DEFAULT false;
UPDATE catalog.micro_batch SET needs_load = row_out_count > 0;
DROP INDEX catalog.micro_batch_not_loaded;
CREATE INDEX micro_batch_not_loaded ON catalog.micro_batch (committed_at)
    WHERE state = 'live' AND loaded_at IS NULL AND needs_load;
CREATE INDEX micro_batch_dead ON catalog.micro_batch (source_partition_id) WHERE state = 'dead';

-- Every replay that was accepted. One at most is open for a topic partition: its `ended_at` is null.
CREATE TABLE catalog.replay (
    replay_id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source_partition_id bigint NOT NULL REFERENCES catalog.source_partition,
    requested_offset    bigint NOT NULL,
    start_offset        bigint NOT NULL,
    until_offset        bigint NOT NULL CHECK (until_offset > start_offset),
    accepted_at         timestamptz NOT NULL DEFAULT now(),
    ended_at            timestamptz,
    -- finished | cancelled (moved to the end) | replaced (by another replay)
    ended_as            text CHECK (ended_as IN ('finished', 'cancelled', 'replaced')),
    CHECK ((ended_at IS NULL) = (ended_as IS NULL))
);
CREATE UNIQUE INDEX replay_open ON catalog.replay (source_partition_id) WHERE ended_at IS NULL;

-- `carried`: taken over from the replaced micro-batch, because the message (offsets) or the raw object
-- (objects) is gone. Its rows count as `passed` or `rejected`, as they stand in the old files.
ALTER TABLE catalog.outcome_count DROP CONSTRAINT outcome_count_check;
ALTER TABLE catalog.outcome_count ADD CONSTRAINT outcome_count_check CHECK (CASE ledger
    WHEN 'offsets' THEN outcome IN ('decoded', 'ignored', 'rejected', 'absent', 'skipped', 'carried')
    WHEN 'objects' THEN outcome IN
        ('emitted', 'duplicate', 'stale', 'filtered', 'missing', 'quarantined', 'parked', 'carried')
    WHEN 'rows_in' THEN outcome IN ('passed', 'filtered', 'duplicate', 'rejected')
    ELSE true END);

-- Files of dead micro-batches that are still listed.
CREATE INDEX file_not_hidden ON catalog.file (micro_batch_id) WHERE state <> 'hidden';
