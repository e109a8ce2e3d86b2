//! The databases that are dumped and restored: made by arithmetic, so that everybody measures with the same rows.

use crate::stage::{Cluster, Result};

/// Rows of a database of about 1 GB; the rows of `audit` are some 60 % of the dump's bytes.
const SHOP: &str = "
CREATE SCHEMA shop;
CREATE SCHEMA audit;
CREATE TABLE shop.customers AS
    SELECT i AS id, 'c' || i || '@' || substr(md5(i::text), 1, 12) || '.example' AS email,
           'Street of ' || substr(md5((-i)::text), 1, 24) AS street, 'Some Town by the Sea' AS town,
           md5('k' || i) AS password, date '2015-01-01' + i % 4000 AS since
    FROM generate_series(1, 400 * @SIZE@) AS i;
CREATE TABLE shop.orders AS
    SELECT i AS id, 1 + (i::bigint * 7919) % (400 * @SIZE@) AS customer_id,
           timestamptz '2020-01-01 00:00+00' + i * interval '97 s' AS at, (i % 10007)::numeric / 100 AS total,
           'paid, sent and delivered; ' || substr(md5('o' || i), 1, 26) AS note
    FROM generate_series(1, 1200 * @SIZE@) AS i;
CREATE TABLE shop.order_lines AS
    SELECT 1 + i / 2 AS order_id, i % 2 AS line, (i::bigint * 104729) % 50021 AS product, 1 + i % 7 AS quantity,
           (i % 9973)::numeric / 100 AS price, 'none' AS remark
    FROM generate_series(0, 2400 * @SIZE@ - 1) AS i;
CREATE TABLE audit.events (id integer, at timestamptz, actor integer, what text, session text) PARTITION BY RANGE (at);
CREATE TABLE audit.pages (id integer, path text, status integer, agent text, visitor text) PARTITION BY RANGE (id);
DO $$
BEGIN
    FOR i IN 0..5 LOOP
        EXECUTE format('CREATE TABLE audit.events_%s PARTITION OF audit.events FOR VALUES FROM (%L) TO (%L)', 2020 + i,
            timestamptz '2020-01-01 00:00+00' + i * @SIZE@ * interval '71 s' * 1600 / 6,
            timestamptz '2020-01-01 00:00+00' + (i + 1) * @SIZE@ * interval '71 s' * 1600 / 6);
    END LOOP;
    FOR i IN 0..2 LOOP
        EXECUTE format('CREATE TABLE audit.pages_%s PARTITION OF audit.pages FOR VALUES FROM (%s) TO (%s)', i + 1,
            i * @SIZE@ * 800 / 3, (i + 1) * @SIZE@ * 800 / 3);
    END LOOP;
END $$;
INSERT INTO audit.events
    SELECT i AS id, timestamptz '2020-01-01 00:00+00' + i * interval '71 s' AS at, i % 4001 AS actor,
           'the order was looked at by somebody of the support team, who ' ||
           (ARRAY['called back', 'wrote a mail', 'did nothing'])[1 + i % 3] AS what,
           md5('e' || i) || substr(md5(i || 'e'), 1, 30) AS session
    FROM generate_series(0, 1600 * @SIZE@ - 1) AS i;
INSERT INTO audit.pages
    SELECT i AS id, '/shop/catalogue/products/' || (i::bigint * 7907) % 50021 AS path, 200 + i % 3 AS status,
           'Mozilla/5.0 (X11; Linux x86_64) something like a browser of last year' AS agent,
           md5('p' || i) || md5(i || 'p') || md5('q' || i) AS visitor
    FROM generate_series(0, 800 * @SIZE@ - 1) AS i;
ALTER TABLE shop.customers ADD PRIMARY KEY (id), ADD UNIQUE (email);
ALTER TABLE shop.orders ADD PRIMARY KEY (id);
ALTER TABLE shop.orders ADD FOREIGN KEY (customer_id) REFERENCES shop.customers;
CREATE INDEX ON shop.orders (customer_id);
CREATE INDEX ON shop.orders (at);
ALTER TABLE shop.order_lines ADD PRIMARY KEY (order_id, line);
CREATE INDEX ON shop.order_lines (product);
ALTER TABLE audit.events ADD PRIMARY KEY (id, at);
CREATE INDEX ON audit.events (at);
ALTER TABLE audit.pages ADD PRIMARY KEY (id);
DO $$
BEGIN
    FOR i IN 1..50 LOOP
        EXECUTE format('CREATE TABLE shop.list_%s AS SELECT j AS id, md5(j::text) AS name FROM generate_series(1, 1000) AS j', i);
        EXECUTE format('ALTER TABLE shop.list_%s ADD PRIMARY KEY (id)', i);
    END LOOP;
END $$;
";

/// Small tables: 20 rows and a primary key each.
const SMALL: &str = "
DO $$
BEGIN
    FOR i IN @FIRST@..@LAST@ LOOP
        EXECUTE format('CREATE TABLE small_%s (id integer PRIMARY KEY, name text NOT NULL)', i);
        EXECUTE format('INSERT INTO small_%s SELECT j, md5(j::text) FROM generate_series(1, 20) AS j', i);
    END LOOP;
END $$;
";
/// In one transaction: each table takes several locks.
const TOGETHER: u32 = 500;

/// Makes the database `name`, of about `size` MB with its indexes.
pub fn make_shop(cluster: &Cluster, name: &str, size: u64) -> Result<()> {
    cluster.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"))?;
    cluster.psql(name, &SHOP.replace("@SIZE@", &size.to_string()))?;
    Ok(())
}

/// Makes the database `name` with so many small tables.
pub fn make_small(cluster: &Cluster, name: &str, tables: u32) -> Result<()> {
    cluster.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"))?;
    for first in (1..=tables).step_by(TOGETHER as usize) {
        let last = (first + TOGETHER - 1).min(tables);
        cluster
            .psql(name, &SMALL.replace("@FIRST@", &first.to_string()).replace("@LAST@", &last.to_string()))?;
    }
    Ok(())
}
