-- Called by: commit, after hold_parked.sql. Locks: none besides the new rows.
-- $9 whether the connector is still parked: one that is not has its object announced again at once.
WITH objects AS (
    SELECT * FROM unnest($2::bigint[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::text[], $8::jsonb[], $9::boolean[])
        AS o (message_offset, record, connector, bucket, key, version, announcement, is_parked)
), kept AS (
    INSERT INTO catalog.parked_object
        (micro_batch_id, message_offset, record, connector, bucket, key, version, announcement)
    SELECT $1, message_offset, record, connector, bucket, key, version, announcement FROM objects WHERE is_parked
)
INSERT INTO catalog.outbox (micro_batch_id, topic, message_key, payload)
SELECT $1, $10, bucket || '/' || key, announcement FROM objects WHERE NOT is_parked ORDER BY message_offset, record
