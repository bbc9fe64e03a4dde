-- Called by: `sluice doctor`. Locks: none.
-- $1: seconds back. Rows a second, in the minute that loaded most.
SELECT (coalesce(max(q.row_count), 0) / 60)::float8
  FROM (SELECT sum(row_count) AS row_count FROM warehouse.load_state
         WHERE loaded_at >= now() - make_interval(secs => $1) GROUP BY date_trunc('minute', loaded_at)) q
