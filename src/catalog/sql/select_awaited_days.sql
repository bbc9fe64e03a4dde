-- Called by: the loader, before it loads several micro-batches together. Locks: none.
-- The days (UTC) of rows that wait to be loaded, those of the micro-batches $1 left out: first and last day of each file.
SELECT DISTINCT coalesce((f.event_time_min AT TIME ZONE 'UTC')::date, date '0001-01-01') AS first,
                coalesce((f.event_time_max AT TIME ZONE 'UTC')::date, date '9999-12-31') AS last
  FROM catalog.micro_batch b JOIN catalog.file f USING (micro_batch_id)
 WHERE b.state = 'live' AND b.loaded_at IS NULL AND b.needs_load AND b.micro_batch_id <> ALL ($1) AND f.kind = 'data'
