-- How many indexes there are, and the name of each that is not valid; parts joined by the unit separator.
SELECT total.count, broken.name
  FROM (SELECT count(*)
          FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')) AS total
  LEFT JOIN (SELECT n.nspname || '.' || c.relname AS name
               FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE NOT (i.indisvalid AND i.indisready)
              ORDER BY 1) AS broken ON true
