-- How many constraints of tables there are, and schema and '<table> <constraint>' of each that is not validated: the
-- form in which a dump names them. One that is not enforced (PostgreSQL 18 has such) never is, and one that a table only
-- has from its parent is told with the parent's.
SELECT total.count, open.schema, open.name
  FROM (SELECT count(*) FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
         WHERE k.conrelid <> 0 AND n.nspname NOT IN ('pg_catalog', 'information_schema')) AS total
  LEFT JOIN (SELECT n.nspname AS schema, c.relname || ' ' || k.conname AS name
               FROM pg_constraint k
               JOIN pg_class c ON c.oid = k.conrelid
               JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE NOT k.convalidated AND k.conislocal
                AND coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)) AS open ON true
 ORDER BY 2, 3
