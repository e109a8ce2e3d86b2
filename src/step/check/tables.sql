-- Every table there is, partitioned and foreign ones included: how many, and schema and name of each.
SELECT count(*) OVER (), n.nspname, c.relname
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'f')
 ORDER BY 2, 3
