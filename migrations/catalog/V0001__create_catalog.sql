-- The catalog: what is true. One micro-batch becomes true in one transaction over these tables.
-- Called by: `sluice migrate` (refinery, under pg_advisory_lock). Locks: creates only.
-- Needs: the trusted extension btree_gist (Debian: postgresql-contrib, part of `postgresql`).

CREATE EXTENSION IF NOT EXISTS btree_gist;

CREATE SCHEMA catalog;
CREATE SCHEMA lake;

-- Which binaries may work with this schema: those whose newest known migration is at least
-- `compatible_from`. A migration that older binaries must not meet raises it.
CREATE TABLE catalog.schema_info (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- names this catalog in the tags of committed offsets; a restored copy keeps it
    catalog_id      uuid NOT NULL DEFAULT gen_random_uuid(),
    version         integer NOT NULL,
    compatible_from integer NOT NULL CHECK (compatible_from <= version)
);
INSERT INTO catalog.schema_info (version, compatible_from) VALUES (1, 1);

-- One row for each Kafka topic partition that a consumer group of one cluster reads.
-- The compare-and-swap row of every commit: (fence, next_offset).
CREATE TABLE catalog.source_partition (
    source_partition_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster_id                text    NOT NULL,
    consumer_group            text    NOT NULL,
    topic                     text    NOT NULL,
    topic_partition           integer NOT NULL CHECK (topic_partition >= 0),
    fence                     uuid    NOT NULL,
    next_offset               bigint  CHECK (next_offset >= 0),
    replay_until              bigint,
    -- the last message a commit covered: proof that the topic is still the same one
    last_message_offset       bigint,
    last_message_timestamp_ms bigint,
    last_message_sha256       bytea,
    halted_reason             text,
    halted_at                 timestamptz,
    UNIQUE (cluster_id, consumer_group, topic, topic_partition)
);
COMMENT ON COLUMN catalog.source_partition.fence IS
    'who may commit: a random UUID installed by the newest assignment';
COMMENT ON COLUMN catalog.source_partition.next_offset IS
    'first offset not yet covered; null until the first position is decided';

CREATE TABLE catalog.fence (
    fence               uuid PRIMARY KEY,
    source_partition_id bigint NOT NULL REFERENCES catalog.source_partition,
    installed_at        timestamptz NOT NULL DEFAULT now(),
    process             text NOT NULL
);
CREATE INDEX fence_source_partition ON catalog.fence (source_partition_id, installed_at);

-- One commit: one topic partition, one half-open offset range.
CREATE TABLE catalog.micro_batch (
    micro_batch_id      uuid PRIMARY KEY,
    source_partition_id bigint NOT NULL REFERENCES catalog.source_partition,
    offsets             int8range NOT NULL CHECK (NOT isempty(offsets) AND lower_inc(offsets) AND NOT upper_inc(offsets)),
    state               text NOT NULL CHECK (state IN ('live', 'dead', 'skipped')),
    fence               uuid NOT NULL REFERENCES catalog.fence,
    superseded_by       uuid REFERENCES catalog.micro_batch,
    -- totals that the ledgers in outcome_count must add up to
    object_count        bigint NOT NULL CHECK (object_count >= 0),
    row_in_count        bigint NOT NULL CHECK (row_in_count >= 0),
    row_out_count       bigint NOT NULL CHECK (row_out_count >= 0),
    oldest_message_at   timestamptz,
    committed_at        timestamptz NOT NULL DEFAULT now(),
    -- a hint for loaders, never the truth (that is load_state in the warehouse)
    loaded_at           timestamptz,
    load_lease_until    timestamptz,
    CONSTRAINT one_live_batch_per_offset EXCLUDE USING gist
        (source_partition_id WITH =, offsets WITH &&) WHERE (state IN ('live', 'skipped'))
);
CREATE INDEX micro_batch_not_loaded ON catalog.micro_batch (committed_at)
    WHERE state = 'live' AND loaded_at IS NULL AND row_out_count > 0;

-- The ledgers: each thing counted once.
--   offsets: decoded | ignored | rejected | absent | skipped        (sum = size of the range)
--   objects: emitted | duplicate | stale | filtered | missing | quarantined | parked  (sum = object_count)
--   rows_in: passed | filtered | duplicate | rejected               (sum = row_in_count)
--   rows_out: the dataset's name                                    (sum = row_out_count)
CREATE TABLE catalog.outcome_count (
    micro_batch_id uuid   NOT NULL REFERENCES catalog.micro_batch ON DELETE CASCADE,
    ledger         text   NOT NULL CHECK (ledger IN ('offsets', 'objects', 'rows_in', 'rows_out')),
    connector      text   NOT NULL DEFAULT '',
    outcome        text   NOT NULL,
    item_count     bigint NOT NULL CHECK (item_count > 0),
    PRIMARY KEY (micro_batch_id, ledger, connector, outcome),
    CHECK (CASE ledger
        WHEN 'offsets' THEN outcome IN ('decoded', 'ignored', 'rejected', 'absent', 'skipped')
        WHEN 'objects' THEN outcome IN ('emitted', 'duplicate', 'stale', 'filtered', 'missing', 'quarantined', 'parked')
        WHEN 'rows_in' THEN outcome IN ('passed', 'filtered', 'duplicate', 'rejected')
        ELSE true END)
);

CREATE TABLE catalog.file (
    file_id            uuid PRIMARY KEY,
    micro_batch_id     uuid NOT NULL REFERENCES catalog.micro_batch,
    kind               text NOT NULL CHECK (kind IN ('data', 'dead_letter')),
    dataset            text NOT NULL,
    connector          text NOT NULL,
    connector_revision text NOT NULL,
    schema_revision    text NOT NULL,
    table_partition    text NOT NULL,
    pending_key        text NOT NULL UNIQUE,
    published_key      text NOT NULL UNIQUE,
    state              text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'published', 'hidden')),
    row_count          bigint NOT NULL CHECK (row_count > 0),
    size_bytes         bigint NOT NULL CHECK (size_bytes > 0),
    sha256             bytea  NOT NULL CHECK (octet_length(sha256) = 32),
    event_time_min     timestamptz,
    event_time_max     timestamptz,
    published_at       timestamptz,
    lease_until        timestamptz
);
CREATE INDEX file_micro_batch ON catalog.file (micro_batch_id);
CREATE INDEX file_pending ON catalog.file (file_id) WHERE state = 'pending';

-- Which batch consumed an object version. `version` is the version id, or `etag@last-modified`
-- where the bucket keeps no versions.
CREATE TABLE catalog.object_claim (
    cluster_id     text NOT NULL,
    consumer_group text NOT NULL,
    bucket         text NOT NULL,
    key            text NOT NULL,
    version        text NOT NULL,
    micro_batch_id uuid NOT NULL REFERENCES catalog.micro_batch,
    message_offset bigint  NOT NULL,
    record         integer NOT NULL,
    connector      text    NOT NULL,
    outcome        text    NOT NULL CHECK (outcome IN ('emitted', 'quarantined')),
    etag           text    NOT NULL,
    last_modified  timestamptz NOT NULL,
    size_bytes     bigint  NOT NULL,
    announced_at   timestamptz NOT NULL,
    PRIMARY KEY (cluster_id, consumer_group, bucket, key, version)
);
CREATE INDEX object_claim_micro_batch ON catalog.object_claim (micro_batch_id, message_offset, record);

-- Rows hidden because a newer version of their object outranks them. Readers honour it.
CREATE TABLE catalog.mask (
    micro_batch_id uuid    NOT NULL REFERENCES catalog.micro_batch ON DELETE CASCADE,
    message_offset bigint  NOT NULL,
    record         integer NOT NULL,
    by_cluster_id     text NOT NULL,
    by_consumer_group text NOT NULL,
    by_bucket         text NOT NULL,
    by_key            text NOT NULL,
    by_version        text NOT NULL,
    PRIMARY KEY (micro_batch_id, message_offset, record),
    FOREIGN KEY (by_cluster_id, by_consumer_group, by_bucket, by_key, by_version)
        REFERENCES catalog.object_claim ON DELETE CASCADE
);
CREATE INDEX mask_by ON catalog.mask (by_cluster_id, by_consumer_group, by_bucket, by_key, by_version);

-- Samples of dead letters: at most ten per batch, connector and reason. The truth is the files.
CREATE TABLE catalog.dead_letter (
    dead_letter_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    micro_batch_id uuid    NOT NULL REFERENCES catalog.micro_batch ON DELETE CASCADE,
    file_id        uuid    REFERENCES catalog.file,
    connector      text    NOT NULL DEFAULT '',
    reason         text    NOT NULL,
    detail         text    NOT NULL,
    message_offset bigint  NOT NULL,
    record         integer,
    row_number     bigint,
    bucket         text,
    key            text,
    version        text,
    sample         bytea   NOT NULL CHECK (octet_length(sample) <= 4096)
);
CREATE INDEX dead_letter_micro_batch ON catalog.dead_letter (micro_batch_id);

CREATE TABLE catalog.outbox (
    outbox_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    micro_batch_id uuid NOT NULL REFERENCES catalog.micro_batch,
    topic          text NOT NULL,
    message_key    text NOT NULL,
    payload        jsonb NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    sent_at        timestamptz
);
CREATE INDEX outbox_unsent ON catalog.outbox (outbox_id) WHERE sent_at IS NULL;

-- The last line of the ledgers: at COMMIT the sums must hold, whoever wrote the rows.
CREATE FUNCTION catalog.assert_books_balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    batch catalog.micro_batch%ROWTYPE;
    books record;
BEGIN
    SELECT * INTO batch FROM catalog.micro_batch
     WHERE micro_batch_id = CASE WHEN TG_OP = 'DELETE' THEN OLD.micro_batch_id ELSE NEW.micro_batch_id END;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT coalesce(sum(item_count) FILTER (WHERE ledger = 'offsets'), 0)  AS offsets,
           coalesce(sum(item_count) FILTER (WHERE ledger = 'objects'), 0)  AS objects,
           coalesce(sum(item_count) FILTER (WHERE ledger = 'rows_in'), 0)  AS rows_in,
           coalesce(sum(item_count) FILTER (WHERE ledger = 'rows_out'), 0) AS rows_out
      INTO books FROM catalog.outcome_count WHERE micro_batch_id = batch.micro_batch_id;
    IF books.offsets <> upper(batch.offsets) - lower(batch.offsets)
       OR books.objects <> batch.object_count
       OR books.rows_in <> batch.row_in_count
       OR books.rows_out <> batch.row_out_count THEN
        RAISE EXCEPTION 'books do not balance for micro-batch %: offsets % of %, objects % of %, rows in % of %, rows out % of %',
            batch.micro_batch_id, books.offsets, upper(batch.offsets) - lower(batch.offsets),
            books.objects, batch.object_count, books.rows_in, batch.row_in_count,
            books.rows_out, batch.row_out_count
            USING ERRCODE = 'check_violation', CONSTRAINT = 'books_balance';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER books_balance AFTER INSERT ON catalog.micro_batch
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION catalog.assert_books_balance();
CREATE CONSTRAINT TRIGGER books_balance AFTER UPDATE OR DELETE ON catalog.outcome_count
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION catalog.assert_books_balance();

-- The same sums as a query, for operators and dashboards.
CREATE VIEW catalog.books AS
SELECT b.micro_batch_id, p.topic, p.topic_partition, b.offsets, b.state,
       upper(b.offsets) - lower(b.offsets) AS offset_count,
       b.object_count, b.row_in_count, b.row_out_count,
       coalesce(o.offsets, 0) = upper(b.offsets) - lower(b.offsets)
           AND coalesce(o.objects, 0) = b.object_count
           AND coalesce(o.rows_in, 0) = b.row_in_count
           AND coalesce(o.rows_out, 0) = b.row_out_count AS balanced
  FROM catalog.micro_batch b
  JOIN catalog.source_partition p USING (source_partition_id)
  LEFT JOIN LATERAL (
        SELECT sum(item_count) FILTER (WHERE ledger = 'offsets')  AS offsets,
               sum(item_count) FILTER (WHERE ledger = 'objects')  AS objects,
               sum(item_count) FILTER (WHERE ledger = 'rows_in')  AS rows_in,
               sum(item_count) FILTER (WHERE ledger = 'rows_out') AS rows_out
          FROM catalog.outcome_count c WHERE c.micro_batch_id = b.micro_batch_id) o ON true;

-- What exact readers read: the files of live batches, wherever they lie right now.
CREATE VIEW lake.files AS
SELECT f.file_id, f.kind, f.dataset, f.table_partition, f.state,
       CASE f.state WHEN 'published' THEN f.published_key ELSE f.pending_key END AS key,
       f.row_count, f.size_bytes, f.event_time_min, f.event_time_max,
       f.connector, f.connector_revision, f.schema_revision,
       f.micro_batch_id, p.topic, p.topic_partition, b.offsets, b.committed_at,
       EXISTS (SELECT FROM catalog.mask m WHERE m.micro_batch_id = b.micro_batch_id) AS has_masks
  FROM catalog.file f
  JOIN catalog.micro_batch b USING (micro_batch_id)
  JOIN catalog.source_partition p USING (source_partition_id)
 WHERE b.state = 'live' AND f.state IN ('pending', 'published');
