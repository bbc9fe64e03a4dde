-- Called by: commit. Locks: none besides the new rows. Checked against micro_batch at COMMIT (BOOK-1).
INSERT INTO catalog.outcome_count (micro_batch_id, ledger, connector, outcome, item_count)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[])
