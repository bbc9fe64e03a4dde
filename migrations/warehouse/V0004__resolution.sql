-- Entity resolution: which member a text means, decided once; other names of members; members that are one.
-- Called by: `sluice migrate`. Locks: the two dimensions and schema_info, for a moment.
-- Binaries that resolve nothing work on beside it: compatible_from stays.

UPDATE warehouse.schema_info SET version = 4;

-- The first decision wins: whoever loads a text later, here or in a replay, takes the member that stands here.
CREATE TABLE warehouse.resolution_decision (
    dimension      text NOT NULL,
    spelling       text NOT NULL,
    natural_key    text NOT NULL,
    verdict        text NOT NULL CHECK (verdict IN ('identifier', 'alias', 'automatic', 'review', 'new')),
    proposed_key   text,
    margin         real,
    features       jsonb,
    candidates     jsonb NOT NULL,
    scheme_version integer NOT NULL,
    index_version  text NOT NULL,
    micro_batch_id uuid NOT NULL,
    decided_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    answer         text CHECK (answer IN ('accepted', 'rejected')),
    answered_by    text,
    answered_at    timestamptz,
    PRIMARY KEY (dimension, spelling)
);
CREATE INDEX resolution_decision_open ON warehouse.resolution_decision (dimension, decided_at)
    WHERE verdict = 'review' AND answer IS NULL;
COMMENT ON TABLE warehouse.resolution_decision IS 'which member of a dimension a text means, and why; one row for each spelling';
COMMENT ON COLUMN warehouse.resolution_decision.spelling IS 'the text in lower case, without accents and punctuation; a long one ends in its hash; of an identifier its column and hash';
COMMENT ON COLUMN warehouse.resolution_decision.natural_key IS 'the member that facts point at: an inferred one, name:<spelling>, unless the verdict is identifier, alias or automatic';
COMMENT ON COLUMN warehouse.resolution_decision.proposed_key IS 'the member that resembles the text most';
COMMENT ON COLUMN warehouse.resolution_decision.margin IS 'how much nearer it is than the next one, in doublings of distance';
COMMENT ON COLUMN warehouse.resolution_decision.features IS 'what speaks for and against it';
COMMENT ON COLUMN warehouse.resolution_decision.candidates IS 'the nearest members, each with its cosine';

-- Spellings that are known to mean a member: by hand, or because a proposal was accepted.
CREATE TABLE warehouse.alias (
    dimension   text NOT NULL,
    spelling    text NOT NULL,
    natural_key text NOT NULL,
    created_by  text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (dimension, spelling)
);
COMMENT ON TABLE warehouse.alias IS 'other names of members; asked before any candidate is looked for';

-- Every merge there was. Facts keep the member that they point at: dim_….merged_into says which one that is today.
CREATE TABLE warehouse.member_merge (
    member_merge_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dimension       text NOT NULL,
    member_key      bigint NOT NULL,
    into_key        bigint NOT NULL,
    reason          text NOT NULL,
    merged_by       text NOT NULL,
    merged_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    undone_by       text,
    undone_at       timestamptz,
    CHECK (member_key <> into_key AND member_key > 0 AND into_key > 0)
);
CREATE UNIQUE INDEX member_merge_in_force ON warehouse.member_merge (dimension, member_key) WHERE undone_at IS NULL;

ALTER TABLE warehouse.dim_users ADD COLUMN merged_into bigint REFERENCES warehouse.dim_users CHECK (merged_into <> user_key);
ALTER TABLE warehouse.dim_products ADD COLUMN merged_into bigint REFERENCES warehouse.dim_products CHECK (merged_into <> product_key);
COMMENT ON COLUMN warehouse.dim_users.merged_into IS 'the member that this one turned out to be; join through warehouse.user_now';
COMMENT ON COLUMN warehouse.dim_products.merged_into IS 'the member that this one turned out to be; join through warehouse.product_now';

-- Facts name (fact_key); what they mean today is (member_key).
CREATE VIEW warehouse.user_now AS
    SELECT user_key AS fact_key, coalesce(merged_into, user_key) AS member_key FROM warehouse.dim_users;
CREATE VIEW warehouse.product_now AS
    SELECT product_key AS fact_key, coalesce(merged_into, product_key) AS member_key FROM warehouse.dim_products;
