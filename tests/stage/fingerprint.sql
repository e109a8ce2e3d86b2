-- One row per table, materialized view, sequence and for all large objects together: name, number of rows, checksum.
-- The checksum is the sum of the rows' hashes, and so the same in whatever order the rows lie.
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';
SET IntervalStyle = 'postgres';
SET bytea_output = 'hex';
SET extra_float_digits = 1;
SET search_path = '';

SELECT CASE
       WHEN relkind = 'S' THEN format(
            'SELECT %L, 1, md5(row(last_value, is_called)::text) FROM %s', name, relation)
       WHEN NOT relispopulated THEN format(
            'SELECT %L, 0, md5(''not populated'')', name)
       ELSE format(
            'SELECT %L, count(*), md5(coalesce(sum((''x'' || left(md5(t::text), 15))::bit(60)::bigint), 0)::text) FROM %s AS t',
            name, relation)
       END
  FROM (SELECT relkind, relispopulated, format('%I.%I', nspname, relname) AS relation, nspname || '.' || relname AS name
          FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE relkind IN ('r', 'p', 'm', 'S')
           AND nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema') AS relations
 ORDER BY name
\gexec

SELECT 'large objects', count(*),
       md5(coalesce(sum(('x' || left(md5(oid::text || lo_get(oid)::text), 15))::bit(60)::bigint), 0)::text)
  FROM pg_largeobject_metadata;
