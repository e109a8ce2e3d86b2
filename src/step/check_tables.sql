-- Every table there is, partitioned and foreign ones included: schema and name, joined by the unit separator.
SELECT n.nspname || E'\x1f' || c.relname
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'f')
