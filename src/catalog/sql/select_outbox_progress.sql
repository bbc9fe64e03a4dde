-- Called by: settled. Locks: none.
SELECT (SELECT count(*) FROM catalog.outbox WHERE sent_at IS NULL) AS unsent,
       coalesce(pg_sequence_last_value(pg_get_serial_sequence('catalog.outbox', 'outbox_id')), 0)::bigint AS made
