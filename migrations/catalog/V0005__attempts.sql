-- Attempts at messages that may kill the process, and connectors that are stopped.
-- Called by: `sluice migrate`. Locks: none beyond the tables it creates.
-- Binaries that know nothing of them would process what is set aside and drain a stopped connector's topic.

UPDATE catalog.schema_info SET version = 5, compatible_from = 5;

-- Begun and not known to have ended alive.
--   position: ownerships of the topic partition that began there and committed nothing
--   message:  attempts at that very message while nothing else was decoded in its process
-- A commit removes what lies before the position that it sets.
CREATE TABLE catalog.attempt (
    source_partition_id bigint  NOT NULL REFERENCES catalog.source_partition,
    subject             text    NOT NULL CHECK (subject IN ('position', 'message')),
    attempt_offset      bigint  NOT NULL,
    attempt_count       integer NOT NULL CHECK (attempt_count >= 0),
    -- the attempt counted last, so that a repeated statement counts once; null where it ended alive
    attempt_id          uuid,
    -- messages before it are read one at a time
    careful_until       bigint,
    process             text    NOT NULL,
    started_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_partition_id, subject, attempt_offset),
    CHECK (careful_until IS NULL OR (subject = 'position' AND careful_until > attempt_offset))
);

-- Connectors whose objects are set aside unread, until somebody resumes them.
CREATE TABLE catalog.parked_connector (
    consumer_group text NOT NULL,
    connector      text NOT NULL,
    reason         text NOT NULL,
    parked_at      timestamptz NOT NULL DEFAULT now(),
    parked_by      text NOT NULL,
    PRIMARY KEY (consumer_group, connector)
);

-- What they were announced, to be announced again. Belongs to its micro-batch, and counts while that is live.
CREATE TABLE catalog.parked_object (
    micro_batch_id uuid    NOT NULL REFERENCES catalog.micro_batch ON DELETE CASCADE,
    message_offset bigint  NOT NULL,
    record         integer NOT NULL,
    connector      text    NOT NULL,
    bucket         text    NOT NULL,
    -- as it was announced, perhaps form-encoded
    key            text    NOT NULL,
    version        text,
    announcement   jsonb   NOT NULL,
    PRIMARY KEY (micro_batch_id, message_offset, record)
);
CREATE INDEX parked_object_connector ON catalog.parked_object (connector);
