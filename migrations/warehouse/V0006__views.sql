-- For people who query: views with friendly names, comments on everything, and two roles.
-- Called by: `sluice migrate`. Locks: creates only, and the schema_info row.
-- Older binaries load as before.

UPDATE warehouse.schema_info SET version = 6;

-- Facts and members as people mean them: merged members are the ones they were merged into, the unknown member is null.
CREATE VIEW warehouse.products AS
    SELECT product_key, product_id, name, brand, category, price, currency, source, updated_at, inferred
      FROM warehouse.dim_products
     WHERE product_key <> 0 AND merged_into IS NULL;

-- Without e-mail addresses: whoever needs them reads dim_users.
CREATE VIEW warehouse.users AS
    SELECT user_key, user_id, name, country, source, updated_at, inferred
      FROM warehouse.dim_users
     WHERE user_key <> 0 AND merged_into IS NULL;

CREATE VIEW warehouse.transactions AS
    SELECT f.transaction_id, f.occurred_at, f.amount, f.currency, f.quantity, f.source, f.updated_at, f.attributes,
           nullif(u.user_id, '') AS user_id, u.country AS user_country,
           nullif(p.product_id, '') AS product_id, CASE WHEN p.product_key <> 0 THEN p.name END AS product_name,
           p.brand AS product_brand, p.category AS product_category
      FROM warehouse.fact_transactions f
      LEFT JOIN warehouse.user_now un ON un.fact_key = f.user_key
      LEFT JOIN warehouse.dim_users u ON u.user_key = un.member_key
      LEFT JOIN warehouse.product_now pn ON pn.fact_key = f.product_key
      LEFT JOIN warehouse.dim_products p ON p.product_key = pn.member_key;

CREATE VIEW warehouse.events AS
    SELECT f.event_id, f.occurred_at, f.event_type, f.session_id, f.source, f.properties,
           nullif(u.user_id, '') AS user_id, u.country AS user_country,
           nullif(p.product_id, '') AS product_id, CASE WHEN p.product_key <> 0 THEN p.name END AS product_name,
           p.brand AS product_brand, p.category AS product_category
      FROM warehouse.fact_events f
      LEFT JOIN warehouse.user_now un ON un.fact_key = f.user_key
      LEFT JOIN warehouse.dim_users u ON u.user_key = un.member_key
      LEFT JOIN warehouse.product_now pn ON pn.fact_key = f.product_key
      LEFT JOIN warehouse.dim_products p ON p.product_key = pn.member_key;

COMMENT ON SCHEMA warehouse IS 'a star schema that Sluice loads: facts, dimensions, views for people, and the loader''s own state';
COMMENT ON TABLE warehouse.schema_info IS 'which migrations these tables have seen; one row';
COMMENT ON COLUMN warehouse.schema_info.only_row IS 'true: there is no second row';
COMMENT ON COLUMN warehouse.schema_info.version IS 'the newest migration applied';
COMMENT ON COLUMN warehouse.schema_info.compatible_from IS 'binaries that know this migration, or a later one, may work here';
COMMENT ON TABLE warehouse.dim_users IS 'users, one row each; key 0 is the unknown user';
COMMENT ON TABLE warehouse.dim_products IS 'products, one row each; key 0 is the unknown product';
COMMENT ON TABLE warehouse.fact_transactions_shadow IS 'rows of fact_transactions that a newer row of their key outranks; the best takes its place should that one go';
COMMENT ON TABLE warehouse.fact_events_shadow IS 'rows of fact_events that a newer row of their key outranks; the best takes its place should that one go';
COMMENT ON TABLE warehouse.dim_users_shadow IS 'rows of dim_users that a newer row of their key outranks; the best takes its place should that one go';
COMMENT ON TABLE warehouse.dim_products_shadow IS 'rows of dim_products that a newer row of their key outranks; the best takes its place should that one go';
COMMENT ON TABLE warehouse.load_state IS 'the micro-batches that these tables contain, written with their rows';
COMMENT ON COLUMN warehouse.load_state.micro_batch_id IS 'catalog.micro_batch';
COMMENT ON COLUMN warehouse.load_state.source_partition_id IS 'catalog.source_partition';
COMMENT ON COLUMN warehouse.load_state.offsets IS 'messages that it covers, from the first to before the last';
COMMENT ON COLUMN warehouse.load_state.loaded_at IS 'when its rows were written';
COMMENT ON COLUMN warehouse.load_state.row_count IS 'rows that it brought, before newer ones outranked them';
COMMENT ON COLUMN warehouse.load_state.stale IS 'its rows must be compared and mended, although they are here';
COMMENT ON COLUMN warehouse.load_state.mask_rev IS 'the masks that the loaded rows reflect';
COMMENT ON COLUMN warehouse.table_partition.name IS 'the partition''s own table';
COMMENT ON TABLE warehouse.member_merge IS 'every merge of members there was';
COMMENT ON VIEW warehouse.user_now IS 'which user a key of a fact means today';
COMMENT ON COLUMN warehouse.user_now.fact_key IS 'user_key of a fact';
COMMENT ON COLUMN warehouse.user_now.member_key IS 'user_key of dim_users: another one where the user was merged';
COMMENT ON VIEW warehouse.product_now IS 'which product a key of a fact means today';
COMMENT ON COLUMN warehouse.product_now.fact_key IS 'product_key of a fact';
COMMENT ON COLUMN warehouse.product_now.member_key IS 'product_key of dim_products: another one where the product was merged';
COMMENT ON VIEW warehouse.transactions IS 'payments with the user and the product that they mean today; null where unknown';
COMMENT ON VIEW warehouse.events IS 'what users did, with the user and the product that they mean today; null where unknown';
COMMENT ON VIEW warehouse.users IS 'users, those that were merged left out; without e-mail addresses';
COMMENT ON VIEW warehouse.products IS 'products, those that were merged left out';

-- What a column is called means the same wherever it stands.
DO $$
DECLARE
    meaning record;
    found   record;
BEGIN
    FOR meaning IN
        SELECT * FROM (VALUES
            ('transaction_id', 'the payment''s own id'),
            ('event_id', 'the event''s own id'),
            ('occurred_at', 'when it happened, by the source; decides the partition'),
            ('user_key', 'surrogate key of dim_users; 0: unknown'),
            ('product_key', 'surrogate key of dim_products; 0: unknown'),
            ('user_id', 'the user''s own id; name:… where only a name was known'),
            ('product_id', 'the product''s own id; name:… where only a name was known'),
            ('amount', 'what was paid, in the currency''s main unit'),
            ('currency', 'ISO 4217'),
            ('quantity', 'pieces'),
            ('source', 'the channel or system that it came through'),
            ('updated_at', 'when the source last changed it; of two rows of one key the later stays'),
            ('attributes', 'whatever else the source tells, as JSON'),
            ('properties', 'whatever else the source tells, as JSON'),
            ('event_type', 'view, click, add_to_cart, checkout, search'),
            ('session_id', 'the visit'),
            ('email', 'e-mail address: personal data'),
            ('name', 'name, as the source writes it'),
            ('country', 'ISO 3166 alpha-2'),
            ('brand', 'brand'),
            ('category', 'category'),
            ('price', 'list price'),
            ('inferred', 'a fact named it before it arrived itself; completed when it does'),
            ('merged_into', 'the member that this one turned out to be'),
            ('user_country', 'country of the user'),
            ('product_name', 'name of the product'),
            ('product_brand', 'brand of the product'),
            ('product_category', 'category of the product'),
            ('fact', 'the partitioned table'),
            ('day', 'UTC; the partition holds what happened then'),
            ('state', 'hot, sealing or sealed'),
            ('changed_at', 'since when'),
            ('_source', 'lineage: catalog.source_partition'),
            ('_offset', 'lineage: offset of the message'),
            ('_record', 'lineage: record within the message'),
            ('_row', 'lineage: row within the object'),
            ('_newer_at', 'order among rows of one key: the connector''s newer_by'),
            ('_object_time', 'order among rows of one key: when the object was written'),
            ('_object_hash', 'order among rows of one key: of objects of one time'),
            ('dimension', 'users, products'),
            ('spelling', 'a text that means a member, in lower case and without punctuation'),
            ('natural_key', 'the member''s own id'),
            ('verdict', 'how it was decided: identifier, alias, automatic, review, new'),
            ('scheme_version', 'how names were compared'),
            ('index_version', 'the members that it was compared with'),
            ('micro_batch_id', 'the micro-batch that brought it first'),
            ('decided_at', 'when it was decided'),
            ('answer', 'a person''s answer: accepted, rejected; null: none yet'),
            ('answered_by', 'who answered'),
            ('answered_at', 'when'),
            ('created_by', 'who made it'),
            ('created_at', 'when it was made'),
            ('member_merge_id', 'number of the merge'),
            ('member_key', 'the member that was merged'),
            ('into_key', 'the member that it was merged into'),
            ('reason', 'why'),
            ('merged_by', 'who merged them'),
            ('merged_at', 'when'),
            ('undone_by', 'who took it back'),
            ('undone_at', 'when; null: it holds')
        ) AS known (name, meaning)
    LOOP
        FOR found IN
            SELECT c.oid::regclass AS relation
              FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
             WHERE c.relnamespace = 'warehouse'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
               AND a.attname = meaning.name AND col_description(c.oid, a.attnum) IS NULL
        LOOP
            EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', found.relation, meaning.name, meaning.meaning);
        END LOOP;
    END LOOP;
END $$;

-- sluice_loader reads and writes rows (who migrates owns the tables, and makes and seals their partitions); sluice_reader reads the views and the facts, no e-mail address among
-- them. Roles belong to the whole server: where they are there already, or may not be made, that is left alone.
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['sluice_loader', 'sluice_reader'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role);
            END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE WARNING 'role % is missing and may not be made: GRANT is up to the server''s owner', role;
        END;
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'sluice_loader') THEN
        GRANT USAGE, CREATE ON SCHEMA warehouse TO sluice_loader;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA warehouse TO sluice_loader;
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA warehouse TO sluice_loader;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'sluice_reader') THEN
        GRANT USAGE ON SCHEMA warehouse TO sluice_reader;
        GRANT SELECT ON warehouse.transactions, warehouse.events, warehouse.users, warehouse.products,
                        warehouse.user_now, warehouse.product_now, warehouse.fact_transactions, warehouse.fact_events
                     TO sluice_reader;
    END IF;
END $$;
