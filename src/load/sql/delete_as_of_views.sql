-- Called by: load::history, before the history of the dimension $1 is made anew; the caller drops the views. Locks: the rows deleted.
DELETE FROM warehouse.as_of_view WHERE $1 = ANY (dimensions) RETURNING name
