-- Called by: commit of a re-drive, for overrides that did not help. Locks: their rows, in the order of their ids.
-- One that was edited meanwhile has another id.
UPDATE catalog.override o
   SET try_count = o.try_count + 1, fault = f.fault
  FROM (SELECT o.override_id, t.fault
          FROM unnest($1::bigint[], $2::text[]) AS t (override_id, fault) JOIN catalog.override o USING (override_id)
         ORDER BY o.override_id FOR UPDATE OF o) f
 WHERE o.override_id = f.override_id
