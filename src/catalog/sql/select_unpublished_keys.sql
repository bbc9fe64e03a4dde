-- Called by: the sweep, after a listing. Locks: none.
-- Those of the keys that no file has which readers may see, now or in a moment.
SELECT k FROM unnest($1::text[]) AS k
 WHERE NOT EXISTS (SELECT FROM catalog.file f WHERE f.published_key = k AND f.state <> 'hidden')
