-- What expectations came to.
-- Called by: `sluice migrate`. Locks: none beyond the table that it creates and, while the index is built, writers of
-- micro_batch.
-- Binaries that know nothing of it go on as before: they write no results.

UPDATE catalog.schema_info SET version = 6;

-- One row for each expectation that a micro-batch was held against. Belongs to the micro-batch, and counts while it is live.
CREATE TABLE catalog.expectation_result (
    micro_batch_id uuid   NOT NULL REFERENCES catalog.micro_batch ON DELETE CASCADE,
    connector      text   NOT NULL,
    stage          text   NOT NULL CHECK (stage IN ('after_decode', 'after_transform', 'before_load')),
    name           text   NOT NULL,
    rows_checked   bigint NOT NULL CHECK (rows_checked > 0),
    rows_failed    bigint NOT NULL CHECK (rows_failed BETWEEN 0 AND rows_checked),
    -- share of nulls, rows as a share of the mean, seconds behind the announcement
    value          double precision,
    -- one that failed stopped its connector, and nothing of it was committed
    outcome        text   NOT NULL CHECK (outcome IN ('passed', 'warned', 'dropped', 'rejected')),
    PRIMARY KEY (micro_batch_id, connector, name)
);

-- Micro-batches before an offset, the last ones first.
CREATE INDEX micro_batch_live_end ON catalog.micro_batch (source_partition_id, upper(offsets)) WHERE state = 'live';
-- What status looks for.
CREATE INDEX expectation_result_failed ON catalog.expectation_result (micro_batch_id) WHERE outcome <> 'passed';
