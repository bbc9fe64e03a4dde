-- Called by: publish::outbox, after the broker acknowledged. Locks: held since select_unsent_outbox.sql.
UPDATE catalog.outbox SET sent_at = now() WHERE outbox_id = ANY ($1)
