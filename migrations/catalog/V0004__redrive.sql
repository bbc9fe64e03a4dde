-- Dead letters for people: corrected bytes, and requests to run micro-batches again.
-- Called by: `sluice migrate`. Locks: creates only, but for schema_info.
-- Binaries that know nothing of overrides would replay a corrected row as the dead letter it was.

UPDATE catalog.schema_info SET version = 4, compatible_from = 4;

-- Bytes that take the place of what was rejected, whenever it is read again. The place is the lineage: a whole message
-- has no record, a whole object no row. Each edit has an id of its own.
CREATE TABLE catalog.override (
    override_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source_partition_id bigint NOT NULL REFERENCES catalog.source_partition,
    message_offset      bigint NOT NULL CHECK (message_offset >= 0),
    record              integer,
    row_number          bigint,
    bytes               bytea  NOT NULL CHECK (octet_length(bytes) > 0),
    edited_at           timestamptz NOT NULL DEFAULT now(),
    edited_by           text   NOT NULL,
    -- re-drives after which it was a dead letter again, and why it was
    try_count           integer NOT NULL DEFAULT 0,
    fault               text,
    CHECK (row_number IS NULL OR record IS NOT NULL)
);
CREATE UNIQUE INDEX override_place ON catalog.override
    (source_partition_id, message_offset, coalesce(record, -1), coalesce(row_number, -1));

-- Requests to run a live micro-batch again. The holder of the topic partition's fence takes them up.
CREATE TABLE catalog.redrive (
    redrive_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- one command
    request_id          uuid   NOT NULL,
    source_partition_id bigint NOT NULL REFERENCES catalog.source_partition,
    -- as it was live then; where it was replaced since, the one that is live now is meant
    micro_batch_id      uuid   NOT NULL REFERENCES catalog.micro_batch,
    requested_at        timestamptz NOT NULL DEFAULT now(),
    requested_by        text   NOT NULL,
    state               text   NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'finished')),
    start_count         integer NOT NULL DEFAULT 0,
    -- done | gone (no live micro-batch is left) | refused (it cannot be rebuilt) | failed
    outcome             text CHECK (outcome IN ('done', 'gone', 'refused', 'failed')),
    detail              text,
    replaced_by         uuid REFERENCES catalog.micro_batch,
    finished_at         timestamptz,
    CHECK ((state = 'finished') = (outcome IS NOT NULL) AND (state = 'finished') = (finished_at IS NOT NULL))
);
-- One that runs has read its overrides already: whoever edits then must be able to ask again.
CREATE UNIQUE INDEX redrive_waiting ON catalog.redrive (micro_batch_id) WHERE state = 'waiting';
CREATE INDEX redrive_open ON catalog.redrive (source_partition_id, redrive_id) WHERE state <> 'finished';
CREATE INDEX redrive_request ON catalog.redrive (request_id);
