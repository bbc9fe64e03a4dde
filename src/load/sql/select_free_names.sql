-- Called by: load::bulk, before and after the fact's days are locked. Locks: none.
-- Of the names $1, in their order, whether nothing has them: a table that is not attached is left to whoever made it. None is free
-- where somebody's trigger waits for rows of the fact $2: it would not see those of a table that is attached later.
SELECT to_regclass(n.name) IS NULL
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = $2::text::regclass AND NOT tgisinternal)
  FROM unnest($1::text[]) WITH ORDINALITY AS n (name, place)
 ORDER BY n.place
