-- What production.sql has not: the other kinds of object that a dump can hold, and those whose order matters. Small, so that
-- a restore of it is quick; what counts is that no kind is missing and that every order trap is set.
--   psql -v ON_ERROR_STOP=1 -f everything.sql <an empty database>, after production_roles
SET client_min_messages = warning;
SET TimeZone = 'UTC';
-- A folder of the server's own; like the roles it belongs to the whole cluster.
SET allow_in_place_tablespaces = on;
SELECT $$CREATE TABLESPACE space_of_ours OWNER shop_owner LOCATION ''$$
 WHERE NOT EXISTS (SELECT FROM pg_tablespace WHERE spcname = 'space_of_ours')
\gexec
COMMENT ON SCHEMA public IS 'not as initdb left it';
GRANT CREATE ON SCHEMA public TO shop_app;

CREATE SCHEMA kinds AUTHORIZATION shop_owner;
CREATE SCHEMA orders_of_loading AUTHORIZATION shop_owner;
CREATE SCHEMA trees AUTHORIZATION shop_owner;
GRANT USAGE ON SCHEMA kinds TO shop_app;
COMMENT ON SCHEMA kinds IS 'one of each';
-- An extension in a schema of its own, one in public, one that others need, and privileges on what they brought.
CREATE SCHEMA extensions;
GRANT USAGE ON SCHEMA extensions TO PUBLIC;
CREATE EXTENSION hstore WITH SCHEMA extensions;
CREATE EXTENSION citext WITH SCHEMA public;
CREATE EXTENSION btree_gist WITH SCHEMA extensions;
CREATE EXTENSION cube WITH SCHEMA extensions;
CREATE EXTENSION earthdistance WITH SCHEMA extensions;
CREATE EXTENSION unaccent WITH SCHEMA extensions;
CREATE EXTENSION file_fdw WITH SCHEMA extensions;
CREATE EXTENSION lo WITH SCHEMA extensions;
COMMENT ON EXTENSION hstore IS 'not what the extension itself says';
REVOKE ALL ON FUNCTION extensions.hstore(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION extensions.hstore(text, text) TO shop_app;

-- Types: a shell, a base type with all that may be said of one, composites in composites, enums, ranges with everything.
CREATE TYPE kinds.shell_only;
CREATE TYPE kinds.base;
CREATE FUNCTION kinds.base_in(cstring) RETURNS kinds.base LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION kinds.base_out(kinds.base) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE kinds.base (INPUT = kinds.base_in, OUTPUT = kinds.base_out, LIKE = integer, CATEGORY = 'N', DEFAULT = '7', DELIMITER = ';');
COMMENT ON TYPE kinds.base IS 'an integer of our own';
CREATE TYPE kinds.inner_row AS (a integer, b text COLLATE "C");
CREATE TYPE kinds.outer_row AS (inner_row kinds.inner_row, list kinds.inner_row[]);
COMMENT ON COLUMN kinds.inner_row.b IS 'of a composite type';
CREATE TYPE kinds.empty_row AS ();
CREATE TYPE kinds.mood AS ENUM ('sad', 'ok', 'happy');
ALTER TYPE kinds.mood ADD VALUE 'meh' BEFORE 'ok';
CREATE TYPE kinds.no_values AS ENUM ();
CREATE FUNCTION kinds.distance(a double precision, b double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE AS 'SELECT a - b';
CREATE TYPE kinds.span AS RANGE (SUBTYPE = double precision, SUBTYPE_DIFF = kinds.distance, MULTIRANGE_TYPE_NAME = kinds.spans);
CREATE COLLATION kinds.numerically (provider = icu, locale = 'en-u-kn-true', deterministic = false);
CREATE COLLATION kinds.plain (provider = libc, locale = 'C');
COMMENT ON COLLATION kinds.numerically IS 'a2 before a10';
CREATE TYPE kinds.words AS RANGE (SUBTYPE = text, COLLATION = kinds.plain);
CREATE DOMAIN kinds.short AS text COLLATE kinds.plain DEFAULT 'none' CONSTRAINT is_short CHECK (length(VALUE) < 20);
CREATE DOMAIN kinds.shorter AS kinds.short CONSTRAINT "is shorter" CHECK (length(VALUE) < 10);
COMMENT ON DOMAIN kinds.short IS 'a domain';
COMMENT ON CONSTRAINT is_short ON DOMAIN kinds.short IS 'its check';

-- Functions of every sort.
CREATE FUNCTION kinds.sql_body(i integer DEFAULT 1, OUT a integer, OUT b text) RETURNS SETOF record
    LANGUAGE sql STABLE ROWS 3 COST 7 PARALLEL RESTRICTED BEGIN ATOMIC SELECT i, 'x'::text; SELECT i + 1, 'y'::text; END;
CREATE FUNCTION kinds.variadic_one(VARIADIC numbers numeric[]) RETURNS numeric LANGUAGE plpgsql STRICT LEAKPROOF
    SET work_mem = '8MB' SET search_path = kinds, pg_temp AS $body$ BEGIN RETURN cardinality(numbers); END $body$;
CREATE FUNCTION kinds.table_one() RETURNS TABLE (a integer, "B b" text) LANGUAGE sql SECURITY DEFINER AS $$ SELECT 1, 'b' $$;
CREATE FUNCTION kinds.windowed(integer) RETURNS bigint LANGUAGE internal WINDOW AS 'window_row_number';
CREATE PROCEDURE kinds.act(INOUT i integer) LANGUAGE plpgsql AS $$ BEGIN i := i + 1; COMMIT; END $$;
CREATE FUNCTION kinds.overloaded(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE FUNCTION kinds.overloaded(text) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 2';
COMMENT ON FUNCTION kinds.overloaded(text) IS 'of two';
COMMENT ON PROCEDURE kinds.act(integer) IS 'a procedure';
CREATE AGGREGATE kinds.total(integer) (SFUNC = int4_sum, STYPE = bigint, COMBINEFUNC = int8pl, INITCOND = '0', PARALLEL = safe);
CREATE AGGREGATE kinds.middle(double precision ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal,
    FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA);
COMMENT ON AGGREGATE kinds.total(integer) IS 'an aggregate';

-- Operators with commutators and negators, classes and families, casts, conversions, transforms, access methods.
CREATE FUNCTION kinds.same(integer, integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 % 100 = $2 % 100';
CREATE FUNCTION kinds.other(integer, integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 % 100 <> $2 % 100';
CREATE FUNCTION kinds.hash(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1 % 100';
CREATE FUNCTION kinds.less(integer, integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 % 100 < $2 % 100';
CREATE FUNCTION kinds.compare(integer, integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1 % 100 - $2 % 100';
CREATE OPERATOR kinds.=== (LEFTARG = integer, RIGHTARG = integer, FUNCTION = kinds.same, COMMUTATOR = OPERATOR(kinds.===),
    NEGATOR = OPERATOR(kinds.!==), HASHES, RESTRICT = eqsel, JOIN = eqjoinsel);
CREATE OPERATOR kinds.!== (LEFTARG = integer, RIGHTARG = integer, FUNCTION = kinds.other, COMMUTATOR = OPERATOR(kinds.!==));
CREATE OPERATOR kinds.<<< (LEFTARG = integer, RIGHTARG = integer, FUNCTION = kinds.less);
CREATE OPERATOR kinds.@@! (RIGHTARG = integer, FUNCTION = kinds.hash);
COMMENT ON OPERATOR kinds.=== (integer, integer) IS 'equal by their last two digits';
CREATE OPERATOR FAMILY kinds.last_digits USING btree;
CREATE OPERATOR CLASS kinds.last_digits_hash FOR TYPE integer USING hash AS OPERATOR 1 kinds.===, FUNCTION 1 kinds.hash(integer);
CREATE OPERATOR CLASS kinds.last_digits_btree FOR TYPE integer USING btree FAMILY kinds.last_digits AS
    OPERATOR 1 kinds.<<<, OPERATOR 3 kinds.===, FUNCTION 1 kinds.compare(integer, integer);
ALTER OPERATOR FAMILY kinds.last_digits USING btree ADD OPERATOR 1 < (bigint, integer), FUNCTION 1 (bigint, integer) btint84cmp(bigint, integer);
COMMENT ON OPERATOR CLASS kinds.last_digits_btree USING btree IS 'a class';
COMMENT ON OPERATOR FAMILY kinds.last_digits USING btree IS 'a family';
CREATE FUNCTION kinds.to_mood(integer) RETURNS kinds.mood LANGUAGE sql IMMUTABLE
    AS $$ SELECT (ARRAY['sad', 'ok', 'happy'])[1 + $1 % 3]::kinds.mood $$;
CREATE CAST (integer AS kinds.mood) WITH FUNCTION kinds.to_mood(integer) AS ASSIGNMENT;
CREATE CAST (kinds.base AS integer) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (kinds.mood AS integer) WITH INOUT;
COMMENT ON CAST (integer AS kinds.mood) IS 'a cast';
CREATE CONVERSION kinds.ours FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
COMMENT ON CONVERSION kinds.ours IS 'a conversion';
CREATE FUNCTION kinds.base_recv(internal) RETURNS kinds.base LANGUAGE internal IMMUTABLE STRICT AS 'int4recv';
CREATE TRANSFORM FOR kinds.base LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION kinds.base_recv(internal));
COMMENT ON TRANSFORM FOR kinds.base LANGUAGE sql IS 'a transform';
CREATE ACCESS METHOD heap_of_ours TYPE TABLE HANDLER heap_tableam_handler;
CREATE ACCESS METHOD tree_of_ours TYPE INDEX HANDLER bthandler;
COMMENT ON ACCESS METHOD heap_of_ours IS 'an access method';
CREATE FUNCTION kinds.call() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE FUNCTION kinds.call_inline(internal) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_inline_handler';
CREATE FUNCTION kinds.validate(oid) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_validator';
CREATE TRUSTED LANGUAGE plpgsql_of_ours HANDLER kinds.call INLINE kinds.call_inline VALIDATOR kinds.validate;
CREATE FUNCTION kinds.in_our_language(i integer) RETURNS integer LANGUAGE plpgsql_of_ours IMMUTABLE AS 'BEGIN RETURN i; END';
COMMENT ON LANGUAGE plpgsql_of_ours IS 'a language';
GRANT USAGE ON LANGUAGE plpgsql_of_ours TO shop_owner;

-- Text search, all four kinds.
CREATE TEXT SEARCH PARSER kinds.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype, HEADLINE = prsd_headline);
CREATE TEXT SEARCH TEMPLATE kinds.template (INIT = dsimple_init, LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH DICTIONARY kinds.dictionary (TEMPLATE = kinds.template, ACCEPT = false);
CREATE TEXT SEARCH DICTIONARY kinds.stem (TEMPLATE = pg_catalog.snowball, LANGUAGE = german, STOPWORDS = german);
CREATE TEXT SEARCH CONFIGURATION kinds.configuration (PARSER = kinds.parser);
ALTER TEXT SEARCH CONFIGURATION kinds.configuration ADD MAPPING FOR asciiword, word WITH kinds.dictionary, kinds.stem;
ALTER TEXT SEARCH CONFIGURATION kinds.configuration ADD MAPPING FOR int WITH pg_catalog.simple;
COMMENT ON TEXT SEARCH PARSER kinds.parser IS 'a parser';
COMMENT ON TEXT SEARCH TEMPLATE kinds.template IS 'a template';
COMMENT ON TEXT SEARCH DICTIONARY kinds.dictionary IS 'a dictionary';
COMMENT ON TEXT SEARCH CONFIGURATION kinds.configuration IS 'a configuration';

-- Foreign data.
CREATE FOREIGN DATA WRAPPER nobody OPTIONS (debug 'true');
COMMENT ON FOREIGN DATA WRAPPER nobody IS 'a wrapper';
GRANT USAGE ON FOREIGN DATA WRAPPER nobody TO shop_owner;
CREATE SERVER nowhere TYPE 'none' VERSION '0' FOREIGN DATA WRAPPER nobody OPTIONS (at 'x', "odd name" 'it''s \ odd');
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
COMMENT ON SERVER nowhere IS 'a server';
GRANT USAGE ON FOREIGN SERVER nowhere TO shop_owner;
GRANT USAGE ON FOREIGN SERVER nowhere TO shop_app WITH GRANT OPTION;
CREATE USER MAPPING FOR PUBLIC SERVER nowhere OPTIONS (secret 's');
CREATE USER MAPPING FOR "Reporting Team" SERVER nowhere;
CREATE FOREIGN TABLE kinds.far_away (a integer OPTIONS (as_column 'b') NOT NULL DEFAULT 1, b text COLLATE "C", CHECK (a > 0))
    SERVER nowhere OPTIONS (table_name 'there');
COMMENT ON COLUMN kinds.far_away.a IS 'of a foreign table';

SET ROLE shop_owner;
SET search_path = kinds, public, extensions;

-- Tables of every sort.
CREATE TABLE all_columns (
    id integer GENERATED ALWAYS AS IDENTITY (START WITH -5 INCREMENT BY -3 MINVALUE -1000 MAXVALUE -1 CYCLE) PRIMARY KEY,
    by_default smallint GENERATED BY DEFAULT AS IDENTITY,
    word shorter,
    feeling mood DEFAULT 'ok',
    own base,
    rows_of outer_row,
    part span,
    parts spans,
    between_words words,
    code bit varying(9),
    tree xml,
    doc json,
    path jsonpath,
    at timestamptz(0) DEFAULT current_timestamp,
    amounts numeric(9, 2)[][],
    twice integer GENERATED ALWAYS AS (by_default * 2) STORED,
    stored text COMPRESSION pglz,
    kept text COLLATE numerically,
    owner_of regclass,
    net cidr,
    mac macaddr8,
    lsn pg_lsn,
    words tsvector,
    CONSTRAINT "two at once" CHECK (by_default > 0 OR word IS NULL) NO INHERIT
) WITH (fillfactor = 70, autovacuum_enabled = false, toast.autovacuum_enabled = false);
ALTER TABLE all_columns ALTER COLUMN code SET STATISTICS 0, ALTER COLUMN stored SET STORAGE EXTERNAL, ALTER COLUMN doc SET (n_distinct = -0.5);
COMMENT ON CONSTRAINT "two at once" ON all_columns IS 'a check';
INSERT INTO all_columns (word, own, rows_of, part, parts, between_words, code, tree, doc, path, at, amounts, stored, kept, owner_of, net, mac, lsn, words)
SELECT 'w' || i, (i || '')::base, ROW(ROW(i, 'a,"b'), ARRAY[ROW(NULL, '')::inner_row])::outer_row,
       span(i, i + 1.5, '[]'), spans(span(i, i + 1), span(i + 3, NULL)), words('a', 'b'), i::bit(8), '<a b="c">&lt;</a>', '{"a" :  1}', '$.a ? (@ > 1)',
       '2026-01-01Z', ARRAY[[1, NULL], [3, 4]], repeat('x', 3000 * i), 'k' || i, 'pg_catalog.pg_class', '10.0.0.0/8', '08:00:2b:01:02:03:04:05', '16/B374D848',
       to_tsvector('simple', 'some words ' || i)
  FROM generate_series(1, 20) AS i;

CREATE TABLE dropped_columns (a integer, gone_1 text, b text NOT NULL DEFAULT 'b', gone_2 integer, c integer);
INSERT INTO dropped_columns VALUES (1, 'x', 'y', 2, 3);
ALTER TABLE dropped_columns DROP COLUMN gone_1, DROP COLUMN gone_2, ADD COLUMN d integer DEFAULT 4;
INSERT INTO dropped_columns VALUES (5, '', 6, 7);
CREATE TABLE only_dropped (a integer);
INSERT INTO only_dropped VALUES (1), (2);
ALTER TABLE only_dropped DROP COLUMN a;
CREATE TABLE of_a_type OF inner_row (a PRIMARY KEY, b WITH OPTIONS NOT NULL DEFAULT 'b');
INSERT INTO of_a_type VALUES (1, 'x');
CREATE TABLE like_another (LIKE all_columns INCLUDING ALL);
CREATE TABLE row_type_user (whole all_columns, several of_a_type[]);
INSERT INTO row_type_user SELECT NULL, ARRAY[t, t] FROM of_a_type AS t;
CREATE UNLOGGED TABLE unlogged (a bigserial UNIQUE NULLS NOT DISTINCT, b text);
INSERT INTO unlogged (b) SELECT 'u' || i FROM generate_series(1, 30) AS i;
CREATE TABLE via_another_method (a integer PRIMARY KEY, b text) USING heap_of_ours;
INSERT INTO via_another_method SELECT i, 'm' || i FROM generate_series(1, 30) AS i;
CREATE TABLE by_last_digits (a integer);
INSERT INTO by_last_digits SELECT i FROM generate_series(1, 99) AS i;
CREATE UNIQUE INDEX by_last_digits_key ON by_last_digits (a last_digits_btree DESC NULLS FIRST);
CREATE INDEX by_last_digits_hash ON by_last_digits USING hash (a last_digits_hash);
CREATE TABLE in_a_space (a integer PRIMARY KEY USING INDEX TABLESPACE space_of_ours, b text) TABLESPACE space_of_ours;
INSERT INTO in_a_space SELECT i, 's' FROM generate_series(1, 30) AS i;
CREATE INDEX in_a_space_b ON in_a_space (b) TABLESPACE space_of_ours;

-- Constraints: deferred, excluded, with nulls, clustered and replicated by one index while another is being built.
CREATE TABLE constrained (
    id integer,
    other integer,
    seat integer,
    during tstzrange,
    place extensions.cube,
    CONSTRAINT deferred UNIQUE (other) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT no_two EXCLUDE USING gist (seat WITH =, during WITH &&) WHERE (seat > 0) DEFERRABLE,
    CONSTRAINT nulls UNIQUE NULLS NOT DISTINCT (id, other) INCLUDE (seat)
);
INSERT INTO constrained SELECT i, -i, i % 5, tstzrange('2026-01-01Z'::timestamptz + i * interval '1 hour', '2026-01-01Z'::timestamptz + (i + 1) * interval '1 hour'), cube(i)
  FROM generate_series(1, 100) AS i;
ALTER TABLE constrained ALTER COLUMN id SET NOT NULL;
CREATE UNIQUE INDEX constrained_id ON constrained (id);
CREATE UNIQUE INDEX constrained_replica ON constrained (id) INCLUDE (other);
CREATE INDEX constrained_third ON constrained (seat, other) WHERE other < 0;
CREATE INDEX constrained_fourth ON constrained ((id + 1), (seat * 2)) WITH (fillfactor = 60);
ALTER INDEX constrained_fourth ALTER COLUMN 2 SET STATISTICS 700;
CREATE INDEX constrained_cube ON constrained USING gist (place);
ALTER TABLE constrained CLUSTER ON constrained_id;
ALTER TABLE constrained REPLICA IDENTITY USING INDEX constrained_replica;
COMMENT ON CONSTRAINT no_two ON constrained IS 'an exclusion';
COMMENT ON INDEX constrained_third IS 'an index';
CREATE STATISTICS many (mcv, ndistinct) ON (id + 1), seat, other FROM constrained;
ALTER STATISTICS many SET STATISTICS 77;
COMMENT ON STATISTICS many IS 'a statistics object';

-- Keys in a circle, to oneself, to a partitioned table, from one, and one that is not valid.
CREATE TABLE hen (id integer PRIMARY KEY, egg integer);
CREATE TABLE egg (id integer PRIMARY KEY, hen integer REFERENCES hen, sibling integer REFERENCES egg ON DELETE SET NULL (sibling));
INSERT INTO hen SELECT i, i FROM generate_series(1, 50) AS i;
INSERT INTO egg SELECT i, 51 - i, nullif(i - 1, 0) FROM generate_series(1, 50) AS i;
ALTER TABLE hen ADD CONSTRAINT of_an_egg FOREIGN KEY (egg) REFERENCES egg DEFERRABLE INITIALLY DEFERRED;
UPDATE hen SET egg = 7 WHERE id = 3;
CREATE TABLE orphan (egg integer);
INSERT INTO orphan VALUES (1), (-1);
ALTER TABLE orphan ADD CONSTRAINT of_no_egg FOREIGN KEY (egg) REFERENCES egg NOT VALID;
COMMENT ON CONSTRAINT of_no_egg ON orphan IS 'a key that is not valid';

-- Trees of partitions: three levels, defaults, other orders of columns, expressions, a foreign leaf, one attached later.
SET search_path = trees, kinds, public;
CREATE TABLE trunk (day date NOT NULL, kind text NOT NULL, id integer NOT NULL, body text DEFAULT 'trunk') PARTITION BY RANGE (day);
CREATE TABLE y2025 PARTITION OF trunk (body DEFAULT 'bough') FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY LIST (kind);
CREATE TABLE y2025_a PARTITION OF y2025 FOR VALUES IN ('a') PARTITION BY HASH (id);
CREATE TABLE y2025_a_0 PARTITION OF y2025_a FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE y2025_a_1 PARTITION OF y2025_a FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE y2025_rest PARTITION OF y2025 DEFAULT;
CREATE TABLE rest PARTITION OF trunk DEFAULT PARTITION BY RANGE (day);
CREATE TABLE rest_old PARTITION OF rest FOR VALUES FROM (MINVALUE) TO ('2000-01-01');
CREATE TABLE rest_rest PARTITION OF rest DEFAULT;
CREATE TABLE y2026 (dropped text, id integer NOT NULL, body text, kind text NOT NULL, day date NOT NULL);
ALTER TABLE y2026 DROP COLUMN dropped;
ALTER TABLE trunk ATTACH PARTITION y2026 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO trunk SELECT date '1999-12-01' + i * 10, (ARRAY['a', 'A', 'b', 'c'])[1 + i % 4], i, 'row ' || i FROM generate_series(1, 1200) AS i;
ALTER TABLE trunk ADD PRIMARY KEY (id, day, kind);
CREATE INDEX trunk_body ON trunk (body) INCLUDE (id);
CREATE INDEX trunk_lower ON ONLY trunk (lower(body));
CREATE INDEX y2026_lower ON y2026 (lower(body));
ALTER INDEX trunk_lower ATTACH PARTITION y2026_lower;
CREATE STATISTICS of_trunk ON kind, id FROM trunk;
ALTER TABLE trunk ADD CONSTRAINT no_new_ones CHECK (id < 100) NOT VALID;
CREATE TABLE leaf_of_trunk (day date, kind text, id integer, FOREIGN KEY (id, day, kind) REFERENCES trunk (id, day, kind)) PARTITION BY LIST (kind);
CREATE TABLE leaf_a PARTITION OF leaf_of_trunk FOR VALUES IN ('a', 'A');
CREATE TABLE leaf_rest PARTITION OF leaf_of_trunk DEFAULT;
INSERT INTO leaf_of_trunk SELECT day, kind, id FROM trunk WHERE id % 3 = 0;
CREATE FUNCTION trees.grow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no row is written again'; END $$;
CREATE TRIGGER grows BEFORE INSERT ON trunk FOR EACH ROW EXECUTE FUNCTION grow();
CREATE TRIGGER leaf_grows AFTER INSERT ON y2026 REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION grow();
ALTER TABLE y2026 DISABLE TRIGGER grows;
COMMENT ON TRIGGER grows ON trunk IS 'a trigger';
CREATE TABLE with_far_leaf (a integer) PARTITION BY LIST (a);
RESET ROLE;
CREATE FOREIGN TABLE far_leaf PARTITION OF with_far_leaf FOR VALUES IN (1) SERVER files OPTIONS (filename '/dev/null');
SET ROLE shop_owner;
CREATE TABLE near_leaf PARTITION OF with_far_leaf DEFAULT;
INSERT INTO with_far_leaf VALUES (2), (3);
CREATE TABLE detached (a integer PRIMARY KEY);
-- By the hash of an enum, which is another in the next database: pg_dump loads such rows through the root.
CREATE TABLE by_mood (feeling kinds.mood NOT NULL, id integer NOT NULL, note text) PARTITION BY HASH (feeling);
CREATE TABLE by_mood_0 PARTITION OF by_mood FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE by_mood_1 PARTITION OF by_mood FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE by_mood_2 PARTITION OF by_mood FOR VALUES WITH (MODULUS 3, REMAINDER 2);
INSERT INTO by_mood SELECT (ARRAY['sad', 'ok', 'meh', 'happy'])[1 + i % 4]::kinds.mood, i, repeat('note ' || i, 20) FROM generate_series(1, 400) AS i;
ALTER TABLE by_mood ADD PRIMARY KEY (id, feeling);
CREATE INDEX by_mood_note ON by_mood_1 (note);
CREATE TRIGGER moody BEFORE INSERT ON by_mood_0 FOR EACH ROW EXECUTE FUNCTION grow();
CREATE TRIGGER moody BEFORE INSERT ON by_mood_1 FOR EACH ROW EXECUTE FUNCTION grow();
CREATE TRIGGER moody BEFORE INSERT ON by_mood_2 FOR EACH ROW EXECUTE FUNCTION grow();

-- Inheritance, from two parents, and a check of the parent's that the child's rows, there first, do not meet.
CREATE TABLE father (a integer, b text);
CREATE TABLE mother (b text, c integer DEFAULT 3);
CREATE TABLE child (a integer NOT NULL DEFAULT 1, d text) INHERITS (father, mother);
CREATE TABLE grandchild (e text) INHERITS (child);
INSERT INTO father SELECT i, 'father' FROM generate_series(1, 10) AS i;
INSERT INTO mother SELECT 'mother', i FROM generate_series(1, 10) AS i;
INSERT INTO child SELECT -i, 'child', i, NULL FROM generate_series(1, 10) AS i;
INSERT INTO grandchild SELECT -i, 'grandchild', i, 'd', repeat('e', i) FROM generate_series(1, 10) AS i;
ALTER TABLE father ADD CONSTRAINT above_zero CHECK (a > 0) NOT VALID;
ALTER TABLE mother ALTER COLUMN c SET DEFAULT 4;

-- What is looked up while rows come, or afterwards. In pg_restore all rows come in the order of names, and all indexes later.
SET search_path = orders_of_loading, kinds, public;
CREATE TABLE a_list (word text PRIMARY KEY, number integer);
INSERT INTO a_list SELECT 'word ' || i, i FROM generate_series(1, 40) AS i;
CREATE TABLE z_list (word text PRIMARY KEY, number integer);
INSERT INTO z_list SELECT 'word ' || i, -i FROM generate_series(1, 40) AS i;
CREATE FUNCTION is_known(word text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN RETURN EXISTS (SELECT FROM orders_of_loading.a_list AS l WHERE l.word = is_known.word); END $$;
CREATE FUNCTION number_of(word text) RETURNS integer LANGUAGE sql IMMUTABLE SET search_path = orders_of_loading, pg_temp
    AS 'SELECT number FROM a_list AS l WHERE l.word = $1';
CREATE FUNCTION twice_number_of(word text) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 2 * orders_of_loading.number_of($1)';
CREATE FUNCTION number_in_z(word text) RETURNS integer LANGUAGE sql IMMUTABLE
    AS 'SELECT number FROM orders_of_loading.z_list AS l WHERE l.word = $1';
CREATE DOMAIN known_word AS text CHECK (is_known(VALUE));
-- Large, so that it comes before the list wherever the largest come first.
CREATE TABLE b_checked (word text CHECK (is_known(word)), filler text);
INSERT INTO b_checked SELECT 'word ' || 1 + i % 40, (SELECT string_agg(md5(i || '.' || j), '') FROM generate_series(1, 300) AS j) FROM generate_series(1, 160) AS i;
CREATE TABLE c_of_domain (word known_word, list known_word[]);
INSERT INTO c_of_domain SELECT 'word ' || i, ARRAY['word ' || i] FROM generate_series(1, 40) AS i;
CREATE TABLE d_generated (word text, number integer GENERATED ALWAYS AS (twice_number_of(word)) STORED);
INSERT INTO d_generated SELECT 'word ' || i FROM generate_series(1, 40) AS i;
CREATE TABLE e_partitioned (word text) PARTITION BY LIST (number_of(word));
CREATE TABLE e_one PARTITION OF e_partitioned FOR VALUES IN (1, 2, 3, 4, 5);
CREATE TABLE e_others PARTITION OF e_partitioned DEFAULT;
INSERT INTO e_partitioned SELECT 'word ' || i FROM generate_series(1, 40) AS i;
CREATE TABLE f_indexed (word text);
INSERT INTO f_indexed SELECT 'word ' || i FROM generate_series(1, 40) AS i;
CREATE UNIQUE INDEX f_indexed_number ON f_indexed (number_in_z(word));
CREATE INDEX f_indexed_if ON f_indexed (word) WHERE number_in_z(word) < -20;
CREATE TABLE g_checks_itself (id integer, before integer);
CREATE FUNCTION is_there(id integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN RETURN id IS NULL OR (SELECT count(*) FROM orders_of_loading.g_checks_itself AS g WHERE g.id = is_there.id) > 0; END $$;
INSERT INTO g_checks_itself SELECT i, nullif(i - 1, 0) FROM generate_series(1, 20) AS i;
ALTER TABLE g_checks_itself ADD CHECK (is_there(before)) NOT VALID;
-- A domain that got stricter while nobody looked at the rows.
CREATE DOMAIN level AS integer;
CREATE TABLE h_levels (id integer PRIMARY KEY, level level, levels level[], filler text);
INSERT INTO h_levels SELECT i, -i, ARRAY[-i], (SELECT string_agg(md5(i || '.' || j), '') FROM generate_series(1, 300) AS j) FROM generate_series(1, 160) AS i;
ALTER DOMAIN level ADD CONSTRAINT above_zero CHECK (VALUE > 0) NOT VALID;
COMMENT ON CONSTRAINT above_zero ON DOMAIN level IS 'a check of a domain that is not valid';

-- Views: on each other, in a circle with a function, on a key, with triggers, rules and checks; materialized ones on those.
SET search_path = kinds, trees, orders_of_loading, public;
CREATE VIEW v_1 (one, two) WITH (security_invoker = true) AS SELECT a, b FROM dropped_columns;
CREATE VIEW v_2 AS SELECT v_1.*, count(*) OVER () FROM v_1;
CREATE VIEW v_checked AS SELECT * FROM v_1 WHERE one > 0 WITH CASCADED CHECK OPTION;
ALTER VIEW v_1 ALTER COLUMN two SET DEFAULT 'from the view';
COMMENT ON VIEW v_1 IS 'a view';
COMMENT ON COLUMN v_1.two IS 'of a view';
CREATE VIEW v_by_key AS SELECT c.id, c.egg, count(e.id) AS eggs FROM hen AS c LEFT JOIN egg AS e ON e.hen = c.id GROUP BY c.id;
CREATE VIEW v_on_that AS SELECT * FROM v_by_key WHERE eggs > 0;
COMMENT ON VIEW v_by_key IS 'needs a primary key';
CREATE FUNCTION of_view() RETURNS SETOF v_1 LANGUAGE sql AS 'SELECT NULL::integer, NULL::text';
CREATE OR REPLACE VIEW v_1 (one, two) WITH (security_invoker = true) AS SELECT a, b FROM dropped_columns UNION ALL SELECT one, two FROM of_view();
CREATE FUNCTION by_key() RETURNS bigint LANGUAGE sql STABLE BEGIN ATOMIC SELECT count(*) FROM (SELECT h.id, h.egg FROM kinds.hen AS h GROUP BY h.id) AS grouped; END;
COMMENT ON FUNCTION by_key() IS 'needs a primary key as well';
CREATE FUNCTION on_write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER instead INSTEAD OF INSERT OR UPDATE OR DELETE ON v_2 FOR EACH ROW EXECUTE FUNCTION on_write();
CREATE RULE through AS ON INSERT TO v_by_key DO INSTEAD (INSERT INTO hen (id) VALUES (NEW.id); NOTIFY hens);
CREATE RULE also AS ON UPDATE TO hen DO ALSO NOTIFY hens;
COMMENT ON RULE also ON hen IS 'a rule';
ALTER TABLE hen DISABLE RULE also;
CREATE MATERIALIZED VIEW z_first WITH (fillfactor = 50) AS SELECT kind, count(*) AS rows FROM trunk GROUP BY kind;
CREATE MATERIALIZED VIEW a_second AS SELECT sum(rows) AS rows FROM z_first;
CREATE MATERIALIZED VIEW b_third AS SELECT a_second.rows, number_of('word 3') AS number, twice_number_of('word 4') AS twice FROM a_second;
CREATE MATERIALIZED VIEW by_a_key AS SELECT h.id, h.egg, count(*) AS eggs FROM hen AS h JOIN egg AS e ON e.hen = h.id GROUP BY h.id;
CREATE MATERIALIZED VIEW on_the_one_by_a_key AS SELECT count(*) AS hens FROM by_a_key;
CREATE MATERIALIZED VIEW not_filled AS SELECT 1 AS a WITH NO DATA;
CREATE UNIQUE INDEX by_a_key_id ON by_a_key (id);
CREATE INDEX z_first_kind ON z_first (kind);
CREATE INDEX not_filled_a ON not_filled (a);
ALTER MATERIALIZED VIEW by_a_key CLUSTER ON by_a_key_id;
CREATE STATISTICS of_matview ON kind, rows FROM z_first;
COMMENT ON MATERIALIZED VIEW by_a_key IS 'needs a primary key';
COMMENT ON COLUMN by_a_key.eggs IS 'of a materialized view';
COMMENT ON INDEX by_a_key_id IS 'of a materialized view';
GRANT SELECT ON by_a_key, v_by_key TO shop_reader;
GRANT SELECT (id) ON v_by_key TO "Reporting Team";

-- Policies, also where the owner himself is held to them.
CREATE TABLE guarded (id integer PRIMARY KEY, owner name DEFAULT current_user);
INSERT INTO guarded SELECT i, 'shop_app' FROM generate_series(1, 10) AS i;
CREATE POLICY mine ON guarded USING (owner = current_user) WITH CHECK (id > (SELECT min(id) FROM hen));
CREATE POLICY readers ON guarded AS RESTRICTIVE FOR SELECT TO shop_reader, "Reporting Team" USING (EXISTS (SELECT FROM egg));
COMMENT ON POLICY mine ON guarded IS 'a policy';
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- Sequences in odd states.
CREATE SEQUENCE free AS smallint INCREMENT BY -7 MINVALUE -70 MAXVALUE 70 START WITH 69 CACHE 3 CYCLE;
CREATE SEQUENCE never_asked START WITH 5;
CREATE SEQUENCE at_its_end MAXVALUE 3;
SELECT nextval('free'), nextval('at_its_end'), nextval('at_its_end'), nextval('at_its_end') \g /dev/null
CREATE UNLOGGED SEQUENCE unlogged_one START WITH 9;
CREATE SEQUENCE owned OWNED BY dropped_columns.c;
SELECT setval('owned', 44, false) \g /dev/null
COMMENT ON SEQUENCE free IS 'a sequence';
ALTER TABLE dropped_columns ALTER COLUMN c SET DEFAULT nextval('owned');

-- Contents that COPY has to escape, and values that are long.
CREATE TABLE hostile (id integer PRIMARY KEY, body text, bytes bytea, list text[]);
INSERT INTO hostile VALUES
    (1, E'\\.', '\x5c2e0a', ARRAY[E'\\.', NULL, 'NULL', '', E'\t', '{}', '"']),
    (2, E'\\.\n\\.\r\n\\.', '\x00ff0d0a', '{}'),
    (3, '', '', NULL), (4, NULL, NULL, NULL), (5, '\N', '\x5c4e', ARRAY['\N']), (6, E'\r', '\x0d', ARRAY[E'\r']),
    (7, E'a\tb\\tc\x01\x02\b\f\v\x7f', '\x0102', ARRAY[[E'\\']]), (8, ' ', NULL, NULL), (9, E'\n', NULL, NULL),
    (10, E'\u2028\ufeff\U0001F418 e\u0301', NULL, NULL), (11, 'PGDMP', '\x5047444d50', NULL);
INSERT INTO hostile SELECT 100 + length(s), s FROM (SELECT repeat(E'x\\\t\n', i) AS s FROM unnest(ARRAY[1023, 1024, 2047, 2048, 4095, 4096, 16384]) AS i) AS t;
CREATE TABLE long_values (id integer PRIMARY KEY, body text, bytes bytea);
INSERT INTO long_values VALUES (1, repeat('long ', 4000000), NULL), (2, NULL, decode(repeat('00ff5c0a', 3000000), 'hex'));
CREATE TABLE "no rows" (a integer PRIMARY KEY);
CREATE TABLE no_columns ();
INSERT INTO no_columns SELECT FROM generate_series(1, 7);

-- Large objects: with privileges, comments and another owner, empty, of more than one page, and with a hole.
SELECT lo_create(4000001), lo_from_bytea(4000002, '\x00'), lo_from_bytea(4000003, decode(repeat('5c2e0a00', 50000), 'hex')) \g /dev/null
SELECT lo_from_bytea(4000100 + i, int4send(i)) FROM generate_series(1, 120) AS i \g /dev/null
SELECT lo_put(4000001, 3000000, '\x01') \g /dev/null
GRANT SELECT ON LARGE OBJECT 4000002 TO shop_app, PUBLIC;
GRANT UPDATE ON LARGE OBJECT 4000003 TO shop_app WITH GRANT OPTION;
COMMENT ON LARGE OBJECT 4000003 IS 'a large object';
RESET ROLE;
ALTER LARGE OBJECT 4000002 OWNER TO auditor;

-- Privileges of every sort, for what is and for what will be.
GRANT SELECT, REFERENCES (id), UPDATE (egg) ON hen TO shop_app WITH GRANT OPTION;
SET ROLE shop_app;
GRANT SELECT ON kinds.hen TO shop_reader;
RESET ROLE;
REVOKE USAGE ON TYPE kinds.mood, kinds.short, kinds.base, kinds.span FROM PUBLIC;
GRANT USAGE ON TYPE kinds.mood TO shop_app;
GRANT USAGE, SELECT ON SEQUENCE kinds.free TO shop_app;
REVOKE ALL ON PROCEDURE kinds.act(integer) FROM PUBLIC;
REVOKE SELECT ON pg_catalog.pg_shdescription FROM PUBLIC;
GRANT SELECT (description) ON pg_catalog.pg_shdescription TO shop_app;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text) TO shop_app;
ALTER TABLE hostile OWNER TO "Reporting Team";
REVOKE ALL ON hostile FROM "Reporting Team";
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA kinds GRANT INSERT ON TABLES TO shop_app;
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner GRANT USAGE ON TYPES TO shop_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner REVOKE EXECUTE ON ROUTINES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE auditor GRANT ALL ON SCHEMAS TO shop_app;
ALTER DEFAULT PRIVILEGES FOR ROLE auditor IN SCHEMA trees GRANT UPDATE ON SEQUENCES TO "Reporting Team" WITH GRANT OPTION;

-- Of the whole database.
CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert', publish_via_partition_root);
CREATE PUBLICATION several FOR TABLE hen WHERE (id > 3), trunk, TABLES IN SCHEMA orders_of_loading;
CREATE PUBLICATION columns FOR TABLE egg (id, hen);
CREATE PUBLICATION nothing;
COMMENT ON PUBLICATION several IS 'a publication';
CREATE FUNCTION kinds.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '% is refused', tg_tag; END $$;
CREATE EVENT TRIGGER refuses_all ON ddl_command_start WHEN TAG IN ('CREATE TABLE', 'DROP TABLE', 'DROP SCHEMA', 'CREATE INDEX') EXECUTE FUNCTION kinds.refuse();
CREATE EVENT TRIGGER asleep ON sql_drop EXECUTE FUNCTION kinds.refuse();
ALTER EVENT TRIGGER asleep DISABLE;
ALTER EVENT TRIGGER refuses_all ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER asleep IS 'an event trigger';
