-- Tables with foreign tables among their partitions and heirs: ANALYZE of them asks those tables' servers. And all else that
-- ANALYZE is to be given one by one, since it goes on from a table to its partitions by itself.
WITH RECURSIVE heirs (ancestor, heir) AS (
    SELECT inhparent, inhrelid FROM pg_inherits
     UNION
    SELECT ancestor, inhrelid FROM heirs JOIN pg_inherits ON inhparent = heir
), has_foreign (oid) AS (
    SELECT DISTINCT ancestor FROM heirs JOIN pg_class ON pg_class.oid = heir WHERE relkind = 'f'
)
SELECT c.oid IN (SELECT oid FROM has_foreign), format('%I.%I', n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' AND EXISTS (SELECT FROM has_foreign)
   AND (NOT c.relispartition
        OR EXISTS (SELECT FROM pg_inherits i JOIN has_foreign h ON h.oid = i.inhparent WHERE i.inhrelid = c.oid))
 ORDER BY 1, 2
