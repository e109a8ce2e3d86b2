-- Defines a function, gone with the session, that gives schema and '<table>.<column>' of each column of whole numbers
-- whose sequence would next give out a number that the column is at already, or past. One that begins anew at its end is
-- passed over. The names are quoted here, by the server, whatever bytes they are.
CREATE FUNCTION pg_temp.columns_ahead() RETURNS TABLE (schema name, what text) LANGUAGE plpgsql AS $body$
DECLARE
    owned record;
    ahead boolean;
BEGIN
    FOR owned IN
        SELECT tn.nspname AS table_schema, t.relname AS table_name, a.attname AS column_name,
               sn.nspname AS sequence_schema, c.relname AS sequence_name, s.seqincrement > 0 AS rises
          FROM pg_sequence s
          JOIN pg_class c ON c.oid = s.seqrelid
          JOIN pg_namespace sn ON sn.oid = c.relnamespace
          JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
                          AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
          JOIN pg_class t ON t.oid = d.refobjid AND t.relkind IN ('r', 'p')
          JOIN pg_namespace tn ON tn.oid = t.relnamespace
          JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
         WHERE NOT s.seqcycle
           AND a.atttypid IN ('smallint'::regtype, 'integer'::regtype, 'bigint'::regtype)
    LOOP
        EXECUTE format(
            'SELECT t.value %s s.last_value OR t.value = s.last_value AND NOT s.is_called'
            ' FROM %I.%I AS s, (SELECT %s(%I) AS value FROM %I.%I) AS t',
            CASE WHEN owned.rises THEN '>' ELSE '<' END,
            owned.sequence_schema, owned.sequence_name,
            CASE WHEN owned.rises THEN 'max' ELSE 'min' END,
            owned.column_name, owned.table_schema, owned.table_name)
           INTO ahead;
        IF ahead THEN
            schema := owned.table_schema;
            what := owned.table_name || '.' || owned.column_name;
            RETURN NEXT;
        END IF;
    END LOOP;
END
$body$
