-- Histories of dimensions (type 2): what members were in which time, in tables warehouse.dim_…_history that the loader makes, and views
-- warehouse.…_as_of that join facts with them. Deletes as flags: members that their source has deleted stay, and say so.
-- Facts whose event time changes: the time of every key, in tables warehouse.fact_…_keys that the loader makes.
-- Called by: `sluice migrate`. Locks: load_state, dimensions and schema_info, for a moment.
-- Loaders that know no histories would load dimensions and leave them as they are, and those that know no rollups facts: those that
-- still run fail from here on, on a column that they do not fill.

UPDATE warehouse.schema_info SET version = 9, compatible_from = 9;

ALTER TABLE warehouse.load_state ADD COLUMN keeps_history boolean NOT NULL DEFAULT true;
ALTER TABLE warehouse.load_state ALTER COLUMN keeps_history DROP DEFAULT;
COMMENT ON COLUMN warehouse.load_state.keeps_history IS 'true: whoever loaded it keeps rollups of facts and histories of dimensions';

-- Every load of a dimension keeps what stands here, whatever its own connectors declare: processes with an older configuration too.
CREATE TABLE warehouse.dimension_history (
    dimension  text PRIMARY KEY,
    definition jsonb NOT NULL,
    built_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE warehouse.dimension_history IS 'the dimensions of which every load keeps the history; one row for each table dim_…_history';
COMMENT ON COLUMN warehouse.dimension_history.dimension IS 'its table, without the schema';
COMMENT ON COLUMN warehouse.dimension_history.definition IS 'which columns are tracked; where a connector declares others, the loader makes the history anew';
COMMENT ON COLUMN warehouse.dimension_history.built_at IS 'when it was last made anew from all versions of all members';

CREATE TABLE warehouse.as_of_view (
    name       text PRIMARY KEY,
    fact       text NOT NULL,
    dimensions text[] NOT NULL,
    definition text NOT NULL
);
COMMENT ON TABLE warehouse.as_of_view IS 'the views that join facts with histories; one row for each view …_as_of';
COMMENT ON COLUMN warehouse.as_of_view.name IS 'the view, without the schema';
COMMENT ON COLUMN warehouse.as_of_view.fact IS 'the fact that it shows';
COMMENT ON COLUMN warehouse.as_of_view.dimensions IS 'the dimensions whose histories it joins';
COMMENT ON COLUMN warehouse.as_of_view.definition IS 'the statements that made it';

-- Filled by connectors that have such a column: `op = ''D'' AS deleted` in their SQL.
ALTER TABLE warehouse.dim_users ADD COLUMN deleted boolean;
ALTER TABLE warehouse.dim_users_shadow ADD COLUMN deleted boolean;
ALTER TABLE warehouse.dim_products ADD COLUMN deleted boolean;
ALTER TABLE warehouse.dim_products_shadow ADD COLUMN deleted boolean;

CREATE OR REPLACE VIEW warehouse.products AS
    SELECT product_key, product_id, name, brand, category, price, currency, source, updated_at, inferred
      FROM warehouse.dim_products
     WHERE product_key <> 0 AND merged_into IS NULL AND deleted IS NOT TRUE;

CREATE OR REPLACE VIEW warehouse.users AS
    SELECT user_key, user_id, name, country, source, updated_at, inferred
      FROM warehouse.dim_users
     WHERE user_key <> 0 AND merged_into IS NULL AND deleted IS NOT TRUE;

COMMENT ON VIEW warehouse.users IS 'users, those that were merged or deleted left out; without e-mail addresses';
COMMENT ON VIEW warehouse.products IS 'products, those that were merged or deleted left out';

-- Facts whose connectors say that the event time of a key may change: one row a key, its time in warehouse.fact_…_keys.
CREATE TABLE warehouse.key_map (
    fact     text PRIMARY KEY,
    built_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE warehouse.key_map IS 'the facts of which every load keeps the times of keys; one row for each table fact_…_keys';
COMMENT ON COLUMN warehouse.key_map.fact IS 'its table, without the schema';
COMMENT ON COLUMN warehouse.key_map.built_at IS 'when it was made from the fact';

-- Of the other facts: keys that came with another event time, and so have several rows.
CREATE TABLE warehouse.other_time (
    fact      text PRIMARY KEY,
    key_count bigint NOT NULL,
    last_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE warehouse.other_time IS 'facts with keys that came with another event time than the row that stood there';
COMMENT ON COLUMN warehouse.other_time.fact IS 'its table, without the schema';
COMMENT ON COLUMN warehouse.other_time.key_count IS 'such keys, each time that one came; of large loads in proportion to those asked about';
COMMENT ON COLUMN warehouse.other_time.last_at IS 'when the last one came';

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['dim_users', 'dim_users_shadow', 'dim_products', 'dim_products_shadow'] LOOP
        EXECUTE format('COMMENT ON COLUMN warehouse.%I.deleted IS %L', name, 'true: its source has deleted it; facts point at it all the same');
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'sluice_loader') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON warehouse.dimension_history, warehouse.as_of_view, warehouse.key_map, warehouse.other_time TO sluice_loader;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'sluice_reader') THEN
        GRANT SELECT ON warehouse.dimension_history, warehouse.as_of_view, warehouse.key_map, warehouse.other_time TO sluice_reader;
    END IF;
END $$;
