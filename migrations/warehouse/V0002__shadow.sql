-- Shadows: for each loaded table, the rows that lost against a newer one of their key. When the winner is
-- retracted by a replay, the best of them takes its place.
-- Called by: `sluice migrate`. Locks: creates only, and the schema_info row.
-- Binaries that keep no shadows would forget losers, so they must not load any more.

UPDATE warehouse.schema_info SET version = 2, compatible_from = 2;

CREATE TABLE warehouse.fact_transactions_shadow (LIKE warehouse.fact_transactions INCLUDING DEFAULTS);
ALTER TABLE warehouse.fact_transactions_shadow
    ADD PRIMARY KEY (transaction_id, occurred_at, _source, _offset, _record, _row);
CREATE INDEX fact_transactions_shadow_lineage ON warehouse.fact_transactions_shadow (_source, _offset);

CREATE TABLE warehouse.fact_events_shadow (LIKE warehouse.fact_events INCLUDING DEFAULTS);
ALTER TABLE warehouse.fact_events_shadow
    ADD PRIMARY KEY (event_id, occurred_at, _source, _offset, _record, _row);
CREATE INDEX fact_events_shadow_lineage ON warehouse.fact_events_shadow (_source, _offset);

-- Of a dimension: without the member's key and its mark, which belong to the member and not to a row.
CREATE TABLE warehouse.dim_users_shadow (LIKE warehouse.dim_users INCLUDING DEFAULTS);
ALTER TABLE warehouse.dim_users_shadow DROP COLUMN user_key, DROP COLUMN inferred;
ALTER TABLE warehouse.dim_users_shadow ADD PRIMARY KEY (user_id, _source, _offset, _record, _row);
CREATE INDEX dim_users_shadow_lineage ON warehouse.dim_users_shadow (_source, _offset);

CREATE TABLE warehouse.dim_products_shadow (LIKE warehouse.dim_products INCLUDING DEFAULTS);
ALTER TABLE warehouse.dim_products_shadow DROP COLUMN product_key, DROP COLUMN inferred;
ALTER TABLE warehouse.dim_products_shadow ADD PRIMARY KEY (product_id, _source, _offset, _record, _row);
CREATE INDEX dim_products_shadow_lineage ON warehouse.dim_products_shadow (_source, _offset);

-- Set where the rows must be loaded again although they are here: the loader compares and mends.
ALTER TABLE warehouse.load_state ADD COLUMN stale boolean NOT NULL DEFAULT false;

-- A replay looks for the members that rows of a range gave their attributes.
CREATE INDEX dim_users_lineage ON warehouse.dim_users (_source, _offset);
CREATE INDEX dim_products_lineage ON warehouse.dim_products (_source, _offset);
