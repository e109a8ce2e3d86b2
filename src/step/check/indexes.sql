-- How many indexes there are, and schema and name of each that is not valid. That of a partitioned table holds nothing
-- itself, and is rightly not valid where a partition has none like it.
SELECT total.count, broken.schema, broken.name
  FROM (SELECT count(*)
          FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')) AS total
  LEFT JOIN (SELECT n.nspname AS schema, c.relname AS name
               FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE NOT (i.indisvalid AND i.indisready) AND c.relkind = 'i') AS broken ON true
 ORDER BY 2, 3
