-- How many constraints of tables there are, and the name of each that is not validated: schema, table and constraint,
-- the last after a unit separator.
SELECT total.count, open.name
  FROM (SELECT count(*) FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
         WHERE k.conrelid <> 0 AND n.nspname NOT IN ('pg_catalog', 'information_schema')) AS total
  LEFT JOIN (SELECT n.nspname || '.' || c.relname || E'\x1f' || k.conname AS name
               FROM pg_constraint k
               JOIN pg_class c ON c.oid = k.conrelid
               JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE NOT k.convalidated
              ORDER BY 1) AS open ON true
