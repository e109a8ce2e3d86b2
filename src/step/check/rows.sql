-- Defines a function, gone with the session, that counts the rows of each table that holds rows itself.
CREATE FUNCTION pg_temp.counted_rows() RETURNS TABLE (rows bigint, schema name, what name) LANGUAGE plpgsql AS $body$
BEGIN
    FOR schema, what IN
        SELECT n.nspname, c.relname
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
         ORDER BY 1, 2
    LOOP
        EXECUTE format('SELECT count(*) FROM ONLY %I.%I', schema, what) INTO rows;
        RETURN NEXT;
    END LOOP;
END
$body$
