-- A database with one of every kind of object that pg_dump writes, spread over schemas so that leaving
-- any of them out cuts through dependencies of every sort. Names are as awkward as PostgreSQL allows.
-- Run by psql -v ON_ERROR_STOP=1 as a superuser into an empty database, on a cluster where the roles
-- contents_owner, contents_reader and "Odd ""Role" exist and the tablespace contents_space.

SET client_min_messages = warning;

CREATE SCHEMA shop AUTHORIZATION contents_owner;
CREATE SCHEMA crm;
CREATE SCHEMA audit;
CREATE SCHEMA ext;
CREATE SCHEMA parts;
CREATE SCHEMA cold;
CREATE SCHEMA kinds;
CREATE SCHEMA reports;
CREATE SCHEMA "Odd Schema";
CREATE SCHEMA "a""b";
CREATE SCHEMA "naïve.é";
CREATE SCHEMA empty;
COMMENT ON SCHEMA shop IS 'the shop; it sells things';
GRANT USAGE ON SCHEMA shop TO contents_reader;
GRANT USAGE ON SCHEMA audit TO contents_reader;
GRANT SELECT ON pg_catalog.pg_authid TO contents_reader;

-- Extensions: types, operators, functions, a foreign data wrapper and a cascade.
CREATE EXTENSION hstore WITH SCHEMA ext;
CREATE EXTENSION citext WITH SCHEMA public;
CREATE EXTENSION cube WITH SCHEMA ext;
CREATE EXTENSION earthdistance WITH SCHEMA shop;
CREATE EXTENSION btree_gist WITH SCHEMA kinds;
CREATE EXTENSION postgres_fdw WITH SCHEMA ext;
REVOKE EXECUTE ON FUNCTION ext.hstore_to_json(ext.hstore) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ext.hstore_to_json(ext.hstore) TO contents_reader;
REVOKE EXECUTE ON FUNCTION shop.earth() FROM PUBLIC;

-- Types of all sorts.
CREATE TYPE crm.mood AS ENUM ('sad', 'ok', 'it''s; fine');
CREATE TYPE kinds.address AS (street text, city public.citext);
CREATE DOMAIN crm.email AS text CONSTRAINT has_at CHECK (VALUE ~ '@');
CREATE DOMAIN kinds.positive AS integer;
CREATE FUNCTION crm.is_positive(integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
ALTER DOMAIN kinds.positive ADD CONSTRAINT positive CHECK (crm.is_positive(VALUE)) NOT VALID;
CREATE FUNCTION audit.span_diff(double precision, double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE AS 'SELECT $1 - $2';
CREATE TYPE kinds.span AS RANGE (subtype = double precision, subtype_diff = audit.span_diff);
CREATE TYPE kinds.spot;
CREATE FUNCTION kinds.spot_in(cstring) RETURNS kinds.spot LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION kinds.spot_out(kinds.spot) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE kinds.spot (INPUT = kinds.spot_in, OUTPUT = kinds.spot_out, LIKE = integer);
CREATE TYPE crm.split;
CREATE FUNCTION audit.split_in(cstring) RETURNS crm.split LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION audit.split_out(crm.split) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE crm.split (INPUT = audit.split_in, OUTPUT = audit.split_out, LIKE = integer);
CREATE TABLE kinds.spots (id integer PRIMARY KEY, spot kinds.spot, span kinds.span, home kinds.address);
INSERT INTO kinds.spots VALUES (1, '7', '[1,2)', ROW('High St', 'Oxford'));
CREATE COLLATION kinds.bytes FROM "C";
CREATE CAST (kinds.spot AS integer) WITHOUT FUNCTION;
CREATE FUNCTION audit.mood_number(crm.mood) RETURNS integer LANGUAGE sql IMMUTABLE
    AS $$SELECT array_position(enum_range(NULL::crm.mood), $1)$$;
CREATE CAST (crm.mood AS integer) WITH FUNCTION audit.mood_number(crm.mood);

-- Operators, classes, families, aggregates, conversions, languages, access methods, text search.
CREATE FUNCTION audit.near(integer, integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT abs($1 - $2) < 2';
CREATE OPERATOR kinds.=~~= (FUNCTION = audit.near, LEFTARG = integer, RIGHTARG = integer, COMMUTATOR = OPERATOR(kinds.=~~=));
CREATE FUNCTION kinds.cmp(integer, integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT btint4cmp($2, $1)';
CREATE FUNCTION kinds.after(integer, integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > $2';
CREATE OPERATOR kinds.<<< (FUNCTION = kinds.after, LEFTARG = integer, RIGHTARG = integer, COMMUTATOR = OPERATOR(cold.>>>));
CREATE OPERATOR cold.>>> (FUNCTION = kinds.after, LEFTARG = integer, RIGHTARG = integer, COMMUTATOR = OPERATOR(kinds.<<<));
CREATE OPERATOR FAMILY crm.backwards_family USING btree;
CREATE OPERATOR CLASS kinds.backwards FOR TYPE integer USING btree FAMILY crm.backwards_family AS
    OPERATOR 1 pg_catalog.>, OPERATOR 2 pg_catalog.>=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pg_catalog.<=,
    OPERATOR 5 pg_catalog.<, FUNCTION 1 kinds.cmp(integer, integer);
CREATE AGGREGATE reports.total(integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '0');
CREATE FUNCTION crm.keep_last(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($2, $1)';
CREATE AGGREGATE reports.final(text) (SFUNC = crm.keep_last, STYPE = text);
CREATE CONVERSION kinds.to_latin FOR 'UTF8' TO 'LATIN1' FROM utf8_to_iso8859_1;
CREATE FUNCTION audit.handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE LANGUAGE otherlang HANDLER audit.handler;
CREATE FUNCTION reports.spoken() RETURNS integer LANGUAGE otherlang AS 'BEGIN RETURN 1; END';
CREATE FUNCTION audit.heap_handler(internal) RETURNS table_am_handler LANGUAGE internal AS 'heap_tableam_handler';
CREATE ACCESS METHOD heap_too TYPE TABLE HANDLER audit.heap_handler;
CREATE TABLE reports.kept_in_heap_too (id integer) USING heap_too;
INSERT INTO reports.kept_in_heap_too VALUES (1), (2);
CREATE FUNCTION cold.from_sql(internal) RETURNS internal LANGUAGE internal IMMUTABLE AS 'int4recv';
CREATE TRANSFORM FOR integer LANGUAGE sql (FROM SQL WITH FUNCTION cold.from_sql(internal));
CREATE TEXT SEARCH DICTIONARY crm.plain (TEMPLATE = pg_catalog.simple);
CREATE TEXT SEARCH TEMPLATE kinds.template (LEXIZE = dsimple_lexize, INIT = dsimple_init);
CREATE TEXT SEARCH PARSER kinds.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
CREATE TEXT SEARCH DICTIONARY cold.by_template (TEMPLATE = kinds.template);
CREATE TEXT SEARCH CONFIGURATION reports.search (PARSER = pg_catalog."default");
ALTER TEXT SEARCH CONFIGURATION reports.search ADD MAPPING FOR asciiword WITH crm.plain;
CREATE TEXT SEARCH CONFIGURATION cold.search (PARSER = kinds.parser);

-- Tables, with every way of needing something elsewhere.
CREATE SEQUENCE cold.ticket;
SELECT setval('cold.ticket', 41);
CREATE FUNCTION cold.default_name() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN 'cold.ticket'; END$$;
CREATE TABLE crm.customer (
    id serial PRIMARY KEY, name text NOT NULL, mail crm.email, mood crm.mood DEFAULT 'ok',
    handle public.citext UNIQUE, CHECK (name <> 'shop.item'));
INSERT INTO crm.customer (name, mail, handle) SELECT 'n' || n, n || '@x', 'H' || n FROM generate_series(1, 20) n;
CREATE TABLE shop.item (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text COLLATE "C" NOT NULL, parent integer REFERENCES shop.item,
    price numeric CHECK (price >= 0), twice numeric GENERATED ALWAYS AS (price * 2) STORED);
INSERT INTO shop.item (name, parent, price) SELECT 'i' || n, nullif(n - 1, 0), n FROM generate_series(1, 30) n;
CREATE TABLE shop.orders (
    id bigserial PRIMARY KEY, customer integer NOT NULL REFERENCES crm.customer, item integer REFERENCES shop.item DEFERRABLE,
    at timestamptz DEFAULT '2026-01-01');
INSERT INTO shop.orders (customer, item) SELECT 1 + n % 20, 1 + n % 30 FROM generate_series(1, 100) n;
CREATE TABLE shop.line (orders bigint REFERENCES shop.orders, n integer, note text, PRIMARY KEY (orders, n)) TABLESPACE contents_space;
INSERT INTO shop.line SELECT n, 1, 'line' FROM generate_series(1, 100) n;
ALTER TABLE shop.line ADD CONSTRAINT later CHECK (note <> 'never') NOT VALID;
ALTER TABLE shop.line ADD CONSTRAINT item_later FOREIGN KEY (n) REFERENCES shop.item NOT VALID;
CREATE TABLE shop.ticket (id bigint DEFAULT nextval('cold.ticket'), name text DEFAULT cold.default_name(), note text DEFAULT 'crm.customer');
INSERT INTO shop.ticket (id) VALUES (40), (41);
CREATE TABLE shop.tagged (id integer, tags ext.hstore, place ext.cube);
INSERT INTO shop.tagged VALUES (1, 'a=>1', '(1,2)');
CREATE INDEX tagged_tags ON shop.tagged USING gist (tags);
CREATE TABLE shop.moods (mood crm.mood[], mail crm.email, who crm.customer);
CREATE TABLE audit.base (id integer, note text);
CREATE TABLE shop.inherits (extra text) INHERITS (audit.base);
INSERT INTO shop.inherits VALUES (1, 'x', 'y');
CREATE TABLE shop.typed OF kinds.address;
CREATE TABLE reports.backwards (n integer, m integer NOT NULL, e text);
INSERT INTO reports.backwards SELECT n, n, 'e' FROM generate_series(1, 10) n;
CREATE INDEX backwards_n ON reports.backwards (n kinds.backwards);
CREATE INDEX backwards_e ON reports.backwards (crm.keep_last(e, 'x'));
CREATE UNIQUE INDEX backwards_m ON reports.backwards (m);
ALTER TABLE reports.backwards REPLICA IDENTITY USING INDEX backwards_m;
ALTER TABLE reports.backwards CLUSTER ON backwards_m;
ALTER TABLE reports.backwards ADD CONSTRAINT apart EXCLUDE USING gist (n WITH =);
ALTER TABLE reports.backwards ADD CONSTRAINT positive CHECK (crm.is_positive(n));
CREATE STATISTICS crm.backwards_nm ON n, m FROM reports.backwards;
ALTER TABLE reports.backwards ALTER COLUMN n SET STATISTICS 10;
ALTER TABLE reports.backwards ADD COLUMN later text;
ALTER TABLE reports.backwards ALTER COLUMN later SET DEFAULT cold.default_name();
COMMENT ON COLUMN reports.backwards.n IS 'n; of shop.item';
COMMENT ON INDEX reports.backwards_n IS 'index';
COMMENT ON CONSTRAINT positive ON reports.backwards IS 'constraint';
GRANT SELECT (n) ON reports.backwards TO contents_reader;
CREATE UNLOGGED TABLE audit.log (id serial, what text, at timestamptz);
INSERT INTO audit.log (what) SELECT 'w' FROM generate_series(1, 50);
GRANT SELECT, INSERT ON audit.log TO contents_reader, "Odd ""Role" WITH GRANT OPTION;
ALTER TABLE audit.log OWNER TO contents_owner;

-- Views, materialized views, functions with SQL-standard bodies.
CREATE VIEW reports.by_customer AS SELECT c.name, count(*) AS n FROM shop.orders o JOIN crm.customer c ON c.id = o.customer GROUP BY c.id;
CREATE VIEW reports.on_view AS SELECT * FROM reports.by_customer WHERE n > 1;
CREATE VIEW reports.alias AS SELECT crm.id, crm.name FROM shop.item crm;
CREATE MATERIALIZED VIEW reports.sums AS SELECT item, count(*) AS n FROM shop.orders GROUP BY item;
CREATE UNIQUE INDEX sums_item ON reports.sums (item);
CREATE MATERIALIZED VIEW reports.of_sums AS SELECT max(n) AS n FROM reports.sums;
CREATE MATERIALIZED VIEW reports.unfilled AS SELECT 1 AS one FROM shop.item WITH NO DATA;
CREATE MATERIALIZED VIEW shop.names AS SELECT DISTINCT name FROM crm.customer;
CREATE FUNCTION reports.count_items() RETURNS bigint LANGUAGE sql STABLE BEGIN ATOMIC SELECT count(*) FROM shop.item; END;
CREATE PROCEDURE shop.forget(who integer) LANGUAGE sql BEGIN ATOMIC DELETE FROM crm.customer WHERE id = who; END;
CREATE FUNCTION shop.lazy() RETURNS bigint LANGUAGE sql AS $$SELECT count(*) FROM crm.customer$$;
CREATE FUNCTION shop.lazier() RETURNS bigint LANGUAGE plpgsql AS $_$BEGIN RETURN (SELECT count(*) FROM crm.customer); END$_$;
CREATE FUNCTION shop.customers() RETURNS SETOF crm.customer LANGUAGE sql AS $$SELECT * FROM crm.customer$$;
CREATE FUNCTION shop.feel(m crm.mood DEFAULT 'sad'::crm.mood) RETURNS text LANGUAGE sql AS 'SELECT $1::text';
CREATE VIEW shop.feelings AS SELECT shop.feel() AS f;
CREATE FUNCTION shop.customer_count() RETURNS bigint LANGUAGE sql STABLE AS $$SELECT count(*) FROM crm.customer$$;
CREATE MATERIALIZED VIEW shop.counted AS SELECT shop.customer_count() AS n;
CREATE MATERIALIZED VIEW shop.counted_twice AS SELECT n * 2 AS n FROM shop.counted;
CREATE VIEW shop.recursive AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r;
CREATE FUNCTION reports.ship(o shop.orders) RETURNS text LANGUAGE sql AS 'SELECT o.id::text';
CREATE VIEW reports.shipped AS SELECT reports.ship(o.*) AS s FROM shop.orders o;

-- Triggers, rules, policies, event triggers.
CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO audit.log (what) VALUES (TG_OP); RETURN NEW; END$$;
CREATE FUNCTION "a""b"."no te"() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$;
CREATE TRIGGER noted AFTER INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION audit.note();
CREATE TRIGGER "odd; trigger" BEFORE UPDATE ON shop.item FOR EACH ROW WHEN (new.name <> 'audit.note()') EXECUTE FUNCTION "a""b"."no te"('x', 'y');
ALTER TABLE shop.item DISABLE TRIGGER "odd; trigger";
COMMENT ON TRIGGER noted ON shop.orders IS 'trigger';
CREATE TRIGGER on_view INSTEAD OF INSERT ON reports.on_view FOR EACH ROW EXECUTE FUNCTION audit.note();
CREATE RULE no_delete AS ON DELETE TO shop.item DO INSTEAD NOTHING;
CREATE RULE copy_to_log AS ON UPDATE TO shop.line DO ALSO INSERT INTO audit.log (what) VALUES (new.note);
CREATE FUNCTION audit.may_see(text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT true';
ALTER TABLE shop.item ENABLE ROW LEVEL SECURITY;
CREATE POLICY see ON shop.item FOR SELECT TO contents_reader, "Odd ""Role" USING (audit.may_see(name));
CREATE POLICY seen ON shop.item FOR SELECT USING (EXISTS (SELECT 1 FROM crm.customer c WHERE c.id = item.id));
CREATE FUNCTION audit.ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN END$$;
CREATE FUNCTION reports.ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN END$$;
CREATE EVENT TRIGGER audit_ddl ON ddl_command_end EXECUTE FUNCTION audit.ddl();
CREATE EVENT TRIGGER reports_ddl ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION reports.ddl();
COMMENT ON EVENT TRIGGER audit_ddl IS 'event trigger';

-- Partitions over several levels and schemas, with indexes and foreign keys both ways.
CREATE TABLE parts.event (id bigint, year integer, kind text, item integer REFERENCES shop.item, PRIMARY KEY (id, year, kind)) PARTITION BY RANGE (year);
CREATE TABLE parts.event_2024 PARTITION OF parts.event FOR VALUES FROM (2024) TO (2025);
CREATE TABLE cold.event_2023 PARTITION OF parts.event FOR VALUES FROM (2023) TO (2024);
CREATE TABLE parts.event_2025 PARTITION OF parts.event FOR VALUES FROM (2025) TO (2026) PARTITION BY LIST (kind);
CREATE TABLE parts.event_2025_a PARTITION OF parts.event_2025 FOR VALUES IN ('a');
CREATE TABLE "Odd Schema"."event; 2025 rest" PARTITION OF parts.event_2025 DEFAULT;
CREATE INDEX event_kind ON parts.event (kind);
INSERT INTO parts.event SELECT n, 2023 + n % 3, chr(97 + n % 2), 1 + n % 30 FROM generate_series(1, 60) n;
CREATE TABLE parts.follows (id bigint, event bigint, year integer, kind text, FOREIGN KEY (event, year, kind) REFERENCES parts.event);
INSERT INTO parts.follows SELECT id, id, year, kind FROM parts.event;
CREATE TABLE parts.follows_part (id bigint, event bigint, year integer, kind text, FOREIGN KEY (event, year, kind) REFERENCES parts.event_2024) PARTITION BY HASH (id);
CREATE TABLE parts.follows_part_0 PARTITION OF parts.follows_part FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parts.follows_part_1 PARTITION OF parts.follows_part FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO parts.follows_part SELECT id, id, year, kind FROM parts.event WHERE year = 2024;
CREATE TRIGGER noted AFTER INSERT ON parts.event FOR EACH ROW EXECUTE FUNCTION audit.note();

-- Foreign data.
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nowhere');
CREATE FOREIGN DATA WRAPPER inert;
CREATE SERVER "near; by" FOREIGN DATA WRAPPER inert;
CREATE USER MAPPING FOR contents_reader SERVER far OPTIONS (user 'x');
CREATE USER MAPPING FOR PUBLIC SERVER "near; by";
GRANT USAGE ON FOREIGN SERVER far TO contents_reader;
CREATE FOREIGN TABLE shop.remote (id integer, tags text) SERVER far;
CREATE FOREIGN TABLE crm.inert (id integer DEFAULT nextval('cold.ticket')) SERVER "near; by";

-- Publications and default privileges.
CREATE FUNCTION cold.wanted(integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE PUBLICATION everything FOR ALL TABLES;
CREATE PUBLICATION wanted FOR TABLE shop.item WHERE (id <> 3);
CREATE PUBLICATION "some; tables" FOR TABLE shop.orders, TABLE crm.customer WHERE (id > 1), TABLES IN SCHEMA audit, reports;
CREATE SUBSCRIPTION upstream CONNECTION 'host=nowhere dbname=x' PUBLICATION p WITH (connect = false, slot_name = NONE, enabled = false);
ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO contents_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA audit GRANT SELECT ON TABLES TO contents_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE contents_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Large objects.
SELECT lo_from_bytea(424242, 'large');
COMMENT ON LARGE OBJECT 424242 IS 'large object';
GRANT SELECT ON LARGE OBJECT 424242 TO contents_reader;

-- Awkward names.
CREATE TABLE "Odd Schema"."T.b" ("i;d" integer PRIMARY KEY, "say ""hi""" text DEFAULT 'it''s -- not; a comment');
INSERT INTO "Odd Schema"."T.b" VALUES (1, 'x'), (2, 'y');
CREATE TABLE "Odd Schema"."new
line" (id integer REFERENCES "Odd Schema"."T.b");
INSERT INTO "Odd Schema"."new
line" VALUES (1), (2);
CREATE SEQUENCE "a""b"."s""q";
CREATE TABLE "a""b"."t""t" (id bigint DEFAULT nextval('"a""b"."s""q"'), odd integer REFERENCES "Odd Schema"."T.b");
INSERT INTO "a""b"."t""t" VALUES (DEFAULT, 1);
CREATE TABLE "naïve.é"."tàble" (id integer PRIMARY KEY, "ключ" bigint DEFAULT nextval('"a""b"."s""q"'::regclass));
INSERT INTO "naïve.é"."tàble" VALUES (1, 1);
CREATE TABLE "naïve.é"."плюс" (id integer REFERENCES "naïve.é"."tàble", "SELECT" text);
INSERT INTO "naïve.é"."плюс" VALUES (1, 'x');
CREATE VIEW "naïve.é"."vue; été" AS SELECT "T.b"."i;d" FROM "Odd Schema"."T.b";
CREATE TABLE public."public table" (id integer PRIMARY KEY, tag public.citext);
INSERT INTO public."public table" VALUES (1, 'X');
CREATE TABLE shop.uses_public (id integer REFERENCES public."public table", tag public.citext);
INSERT INTO shop.uses_public VALUES (1, 'x');
GRANT SELECT ON "naïve.é"."tàble" TO "Odd ""Role";
ALTER TABLE "naïve.é"."tàble" OWNER TO "Odd ""Role";
REFRESH MATERIALIZED VIEW reports.sums;
REFRESH MATERIALIZED VIEW reports.of_sums;

-- Finer needs: generated columns, partition keys, composite and range types over other schemas' types, checks.
CREATE FUNCTION crm.twice(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION cold.probe(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
    AS $$BEGIN RETURN EXISTS (SELECT 1 FROM audit.log) OR true; END$$;
CREATE TABLE reports.generated (n integer, m integer GENERATED ALWAYS AS (crm.twice(n)) STORED);
INSERT INTO reports.generated VALUES (1), (2);
CREATE TABLE reports.checked (n integer CHECK (cold.probe(n)), d kinds.positive DEFAULT 3);
INSERT INTO reports.checked VALUES (1, 2);
CREATE TABLE reports.checked_later (n integer);
INSERT INTO reports.checked_later VALUES (1);
ALTER TABLE reports.checked_later ADD CONSTRAINT probed CHECK (cold.probe(n)) NOT VALID;
CREATE INDEX checked_later_probed ON reports.checked_later (n) WHERE cold.probe(n);
CREATE TYPE reports.pair AS (a crm.mood, b kinds.spot);
CREATE DOMAIN reports.pair_domain AS reports.pair;
CREATE TYPE cold.mail_range AS RANGE (subtype = crm.email);
CREATE TABLE shop.ranges (r cold.mail_range, p reports.pair_domain[], s text COLLATE kinds.bytes);
CREATE INDEX ranges_s ON shop.ranges (s COLLATE kinds.bytes);
CREATE TABLE cold.by_key (n integer) PARTITION BY LIST (crm.twice(n));
CREATE TABLE parts.by_key_2 PARTITION OF cold.by_key FOR VALUES IN (2);
INSERT INTO cold.by_key VALUES (1), (1);
CREATE STATISTICS reports.expressions ON (crm.twice(n)), n FROM reports.generated;
CREATE TABLE parts.searched (body text, lexemes tsvector GENERATED ALWAYS AS (to_tsvector('reports.search'::regconfig, body)) STORED);
INSERT INTO parts.searched VALUES ('a cat');
CREATE VIEW cold.search_view AS SELECT to_tsvector('reports.search', body) AS v FROM parts.searched;
CREATE VIEW cold.looped AS SELECT 1 AS n, 'x'::text AS t;
CREATE FUNCTION reports.loop() RETURNS SETOF cold.looped LANGUAGE sql STABLE AS $$SELECT 1, 'y'::text$$;
CREATE OR REPLACE VIEW cold.looped AS SELECT n, t FROM reports.loop();
CREATE TABLE crm.defaults_on_itself (id integer);
CREATE FUNCTION cold.count_self() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM crm.defaults_on_itself; END;
ALTER TABLE crm.defaults_on_itself ALTER COLUMN id SET DEFAULT cold.count_self()::integer;
ALTER TABLE crm.defaults_on_itself ADD CONSTRAINT self_checked CHECK (cold.count_self() >= 0);
CREATE TRIGGER only_when BEFORE INSERT ON reports.generated FOR EACH ROW WHEN (cold.probe(new.n)) EXECUTE FUNCTION "a""b"."no te"();
CREATE POLICY checked ON reports.generated FOR INSERT WITH CHECK (cold.probe(n));
CREATE RULE log_it AS ON INSERT TO reports.generated WHERE cold.probe(new.n) DO ALSO NOTHING;
CREATE FUNCTION parts.unaccented(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT ext.hstore('a', $1)::text$$;
CREATE INDEX searched_unaccented ON parts.searched (parts.unaccented(body));
CREATE MATERIALIZED VIEW parts.unaccented_all AS SELECT parts.unaccented(body) AS u FROM parts.searched;
CREATE MATERIALIZED VIEW cold.nested AS SELECT u FROM parts.unaccented_all;
CREATE TABLE parts.region (id integer PRIMARY KEY) PARTITION BY HASH (id);
CREATE TABLE parts.region_0 PARTITION OF parts.region FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE crm.region_1 PARTITION OF parts.region FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO parts.region SELECT generate_series(1, 20);
CREATE TABLE cold.visit (id integer, region integer REFERENCES parts.region) PARTITION BY RANGE (id);
CREATE TABLE cold.visit_low PARTITION OF cold.visit FOR VALUES FROM (0) TO (10);
CREATE TABLE reports.visit_high PARTITION OF cold.visit FOR VALUES FROM (10) TO (100);
ALTER TABLE reports.visit_high ADD CONSTRAINT own FOREIGN KEY (id) REFERENCES crm.customer (id) NOT VALID;
ALTER TABLE reports.visit_high ALTER COLUMN region SET DEFAULT crm.twice(3);
INSERT INTO cold.visit SELECT n, n FROM generate_series(1, 20) n;
CREATE TRIGGER high AFTER INSERT ON reports.visit_high FOR EACH ROW EXECUTE FUNCTION "a""b"."no te"();
CREATE TABLE parts.measure (at date, v integer) PARTITION BY RANGE (at);
CREATE FOREIGN TABLE ext.measure_far PARTITION OF parts.measure FOR VALUES FROM ('2020-01-01') TO ('2021-01-01') SERVER far;
CREATE TABLE parts.measure_near PARTITION OF parts.measure DEFAULT;
INSERT INTO parts.measure VALUES ('2026-01-01', 1);
CREATE VIEW public.over_all AS SELECT o.id, i.name FROM shop.orders o JOIN shop.item i ON i.id = o.item;
CREATE FUNCTION public.helper(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE VIEW parts.helped AS SELECT public.helper(id) AS h FROM parts.region;
CREATE FUNCTION shop.overloaded(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION shop.overloaded(crm.mood) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE VIEW parts.overloads AS SELECT shop.overloaded(1) AS a;
CREATE VIEW parts.overloads_mood AS SELECT shop.overloaded('ok'::crm.mood) AS a;
CREATE FUNCTION "Odd Schema"."f(x"("a b" integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE VIEW kinds.odd AS SELECT "Odd Schema"."f(x"(2) AS "y; z";
COMMENT ON FUNCTION "Odd Schema"."f(x"(integer) IS 'it''s; "odd"';

-- The schema that initdb made, changed; and what belongs to the database as a whole.
ALTER SCHEMA public OWNER TO contents_owner;
COMMENT ON SCHEMA public IS 'not as it was';
GRANT CREATE ON SCHEMA public TO contents_reader;
DO $$
BEGIN
    EXECUTE format('COMMENT ON DATABASE %I IS %L', current_database(), 'the production database');
    EXECUTE format('ALTER DATABASE %I SET work_mem = %L', current_database(), '8MB');
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO contents_reader', current_database());
END
$$;
