-- Chunks of large objects that lie in `_pending/` before a micro-batch names them.
-- Called by: `sluice migrate`. Locks: none beyond the table it creates.
-- Binaries that know nothing of it go on as before: they read such an object anew.

UPDATE catalog.schema_info SET version = 8;

-- One row for each chunk but the last. Never live by themselves: the owner of the topic partition adopts those of the
-- object version, connector revision and chunk size that it reads, and goes on behind them. Written and deleted under
-- the owner's fence, with its source_partition row locked; a row goes before its files do.
CREATE TABLE catalog.object_chunk (
    source_partition_id bigint  NOT NULL REFERENCES catalog.source_partition,
    message_offset      bigint  NOT NULL,
    -- from 0, without a gap
    number              integer NOT NULL,
    -- the micro-batch that its files are of
    micro_batch_id      uuid    NOT NULL,
    bucket              text    NOT NULL,
    key                 text    NOT NULL,
    version             text    NOT NULL,
    connector           text    NOT NULL,
    connector_revision  text    NOT NULL,
    chunk_bytes         bigint  NOT NULL,
    pending_keys        text[]  NOT NULL,
    -- where the next one begins, by which schema, and what the commit must know of the rows
    state               jsonb   NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_partition_id, message_offset, number)
);
