-- Called by: commit. Locks: none besides the new rows. Samples only; the files are the truth.
INSERT INTO catalog.dead_letter
    (micro_batch_id, connector, reason, detail, message_offset, record, row_number, bucket, key, version, sample)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::integer[], $7::bigint[],
                         $8::text[], $9::text[], $10::text[], $11::bytea[])
