-- Called by: commit. Locks: none besides the new rows.
INSERT INTO catalog.expectation_result
       (micro_batch_id, connector, stage, name, rows_checked, rows_failed, value, outcome)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::float8[], $8::text[])
