-- Hot and sealed partitions: a hot one carries its unique key and the lineage's BRIN alone; when its day is over the loader seals it,
-- with indexes on the dimensions' keys, checked foreign keys, a BRIN on time, and statistics.
-- Called by: `sluice migrate`. Locks: facts and dimensions, exclusively, for a moment; schema_info.
-- Partitions that are there become hot and are sealed again. Binaries that know nothing of it load as before: compatible_from stays.

UPDATE warehouse.schema_info SET version = 5;

CREATE TABLE warehouse.table_partition (
    name       text PRIMARY KEY,
    fact       text NOT NULL,
    day        date NOT NULL,
    state      text NOT NULL CHECK (state IN ('hot', 'sealing', 'sealed')),
    reason     text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (fact, day)
);
COMMENT ON TABLE warehouse.table_partition IS 'the partitions of facts, one a day: which are hot, which are sealed, and why';
COMMENT ON COLUMN warehouse.table_partition.reason IS 'why it is not sealed yet, or what the sealing waits for';

-- What partitions get when they are sealed is not declared on the facts any more, or every new partition would begin with it.
ALTER TABLE warehouse.fact_transactions
    DROP CONSTRAINT fact_transactions_user_key_fkey, DROP CONSTRAINT fact_transactions_product_key_fkey;
DROP INDEX warehouse.fact_transactions_user, warehouse.fact_transactions_product, warehouse.fact_transactions_occurred_at;
ALTER TABLE warehouse.fact_events
    DROP CONSTRAINT fact_events_user_key_fkey, DROP CONSTRAINT fact_events_product_key_fkey;
DROP INDEX warehouse.fact_events_user, warehouse.fact_events_product, warehouse.fact_events_occurred_at;

COMMENT ON TABLE warehouse.fact_transactions IS 'payments; foreign keys to dim_users and dim_products hold always, and are declared on sealed partitions';
COMMENT ON TABLE warehouse.fact_events IS 'what people do in the shop; foreign keys to dim_users and dim_products hold always, and are declared on sealed partitions';
