-- A journal on PostgreSQL, version 1. Running this again changes nothing: psql -1 -v ON_ERROR_STOP=1 -f schema.sql
--
-- Whoever changes anything does so by one call of one of the functions below, which locks the one row of
-- staging_journal.journal first. So changes happen one after the other, each of them whole; an event's number says when it
-- became visible, and whoever has read up to a number has missed nothing. Nothing is kept in a session.

DO $$
BEGIN
    IF to_regnamespace('staging_journal') IS NULL THEN
        CREATE SCHEMA staging_journal;
    END IF;
END
$$;

CREATE TABLE IF NOT EXISTS staging_journal.journal (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    version  integer NOT NULL,      -- of this schema
    seq      bigint  NOT NULL       -- of the last event
) WITH (fillfactor = 20);

INSERT INTO staging_journal.journal (version, seq) VALUES (1, 0) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS staging_journal.run (
    id          uuid    PRIMARY KEY,            -- version 7: in the order of their beginnings
    epoch       bigint  NOT NULL,               -- counts the owners
    expires     timestamptz,                    -- until when the last of them owns it; NULL when it gave it back
    claim       uuid,                           -- the last one's claim, to know it again
    holder      text,                           -- who that is, as JSON
    progress    text,                           -- what that one shows of it, as JSON
    events      bigint  NOT NULL DEFAULT 0,     -- how many there are
    head        bytea   NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),  -- blake3 of the last event
    started_at  timestamptz,
    status      text,                           -- NULL when the version that wrote last could not read it
    command     text,
    section     text,
    actor       text,
    read_only   boolean
) WITH (fillfactor = 70);

CREATE INDEX IF NOT EXISTS run_by_section ON staging_journal.run (section, id);
CREATE INDEX IF NOT EXISTS run_by_start ON staging_journal.run (started_at);
CREATE INDEX IF NOT EXISTS run_by_status ON staging_journal.run (status, id);

-- What no two runs may work on at the same time. It is held as long as the run's owner of that epoch holds the run.
CREATE TABLE IF NOT EXISTS staging_journal.target (
    name   text    PRIMARY KEY,
    run    uuid    NOT NULL REFERENCES staging_journal.run ON DELETE CASCADE,
    epoch  bigint  NOT NULL
);

CREATE TABLE IF NOT EXISTS staging_journal.event (
    run    uuid    NOT NULL REFERENCES staging_journal.run,
    n      bigint  NOT NULL,        -- within the run, from 0
    seq    bigint  NOT NULL UNIQUE, -- within the journal, from 1
    at     timestamptz,             -- NULL when the version that wrote it here could not read that
    actor  text,                    -- likewise
    bytes  bytea   NOT NULL,
    PRIMARY KEY (run, n)
);

CREATE TABLE IF NOT EXISTS staging_journal.attachment (
    hash   bytea   PRIMARY KEY,     -- blake3 of the bytes
    bytes  bytea   NOT NULL
);

-- The runs as people see them. A function that changes while a statement goes on would keep indexes from being used.
CREATE OR REPLACE VIEW staging_journal.history AS
SELECT id, started_at, status, command, section, actor, read_only, held,
       CASE WHEN held THEN progress END AS progress,
       CASE WHEN status IS NULL THEN 'unreadable'
            WHEN status IN ('running', 'rolling_back') AND NOT held THEN 'interrupted'
            ELSE status
       END AS shown
  FROM (SELECT *, coalesce(expires > statement_timestamp(), false) AS held FROM staging_journal.run) AS run
 WHERE events > 0;

-- Before any change: nobody else changes anything until this transaction ends, and it ends on the disk.
CREATE OR REPLACE FUNCTION staging_journal.lock() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    PERFORM FROM staging_journal.journal FOR UPDATE;
END
$$;

-- Makes somebody the owner of a run, and of its target if it has one, for a while. Gives the epoch, and how much of the
-- run there is; or what is busy, and who holds it.
CREATE OR REPLACE FUNCTION staging_journal.claim(
    a_run uuid, a_target text, a_claim uuid, a_holder text, lease interval,
    OUT epoch bigint, OUT events bigint, OUT head text, OUT busy text, OUT holder text
) LANGUAGE plpgsql AS $$
DECLARE
    mine   staging_journal.run;
    other  staging_journal.run;
BEGIN
    PERFORM staging_journal.lock();
    SELECT * INTO mine FROM staging_journal.run WHERE id = a_run;
    SELECT run.* INTO other
      FROM staging_journal.target JOIN staging_journal.run ON run.id = target.run AND run.epoch = target.epoch
     WHERE target.name = a_target AND run.id <> a_run;
    IF mine.expires > clock_timestamp() AND mine.claim <> a_claim THEN
        busy := a_run::text;
        holder := mine.holder;
    ELSIF other.expires > clock_timestamp() THEN
        busy := a_target;
        holder := other.holder;
    ELSIF mine.expires > clock_timestamp() THEN
        -- It was asked before, and the answer was lost.
        epoch := mine.epoch;
        events := mine.events;
        head := encode(mine.head, 'hex');
    ELSE
        -- Who held the target and let its lease run out is shut out for good, whatever the clock does.
        UPDATE staging_journal.run SET epoch = run.epoch + 1, expires = NULL WHERE id = other.id;
        INSERT INTO staging_journal.run AS run (id, epoch, expires, claim, holder)
        VALUES (a_run, 1, clock_timestamp() + lease, a_claim, a_holder)
            ON CONFLICT (id) DO UPDATE
           SET epoch = run.epoch + 1, expires = excluded.expires, claim = excluded.claim, holder = excluded.holder,
               progress = NULL
        RETURNING * INTO mine;
        INSERT INTO staging_journal.target AS target (name, run, epoch)
        SELECT a_target, a_run, mine.epoch WHERE a_target IS NOT NULL
            ON CONFLICT (name) DO UPDATE SET run = excluded.run, epoch = excluded.epoch;
        epoch := mine.epoch;
        events := mine.events;
        head := encode(mine.head, 'hex');
    END IF;
END
$$;

-- Appends event number a_n, and says whether it is there: it is not when the caller is not the owner any more, or when
-- what is there is not what the caller thinks.
CREATE OR REPLACE FUNCTION staging_journal.append(
    a_run uuid, an_epoch bigint, a_n bigint, before bytea, hash bytea, bytes bytea,
    event_at timestamptz, event_actor text,
    a_start timestamptz, a_status text, a_command text, a_section text, an_actor text, is_read_only boolean
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    next  bigint;
BEGIN
    PERFORM staging_journal.lock();
    UPDATE staging_journal.run
       SET events = a_n + 1, head = hash, started_at = a_start, status = a_status, command = a_command,
           section = a_section, actor = an_actor, read_only = is_read_only
     WHERE id = a_run AND epoch = an_epoch AND expires > clock_timestamp() AND events = a_n AND head = before;
    IF NOT FOUND THEN
        -- It may be there already, and the answer was lost.
        RETURN EXISTS (SELECT FROM staging_journal.run
                        WHERE id = a_run AND epoch = an_epoch AND expires > clock_timestamp()
                          AND events = a_n + 1 AND head = hash);
    END IF;
    UPDATE staging_journal.journal SET seq = seq + 1 RETURNING seq INTO next;
    INSERT INTO staging_journal.event (run, n, seq, at, actor, bytes)
    VALUES (a_run, a_n, next, event_at, event_actor, bytes);
    RETURN true;
END
$$;

-- Prolongs the ownership, and says whether there still is one.
CREATE OR REPLACE FUNCTION staging_journal.renew(a_run uuid, an_epoch bigint, lease interval)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM staging_journal.lock();
    UPDATE staging_journal.run SET expires = clock_timestamp() + lease
     WHERE id = a_run AND epoch = an_epoch AND expires > clock_timestamp();
    RETURN FOUND;
END
$$;

-- Gives the ownership back.
CREATE OR REPLACE FUNCTION staging_journal.release(a_run uuid, an_epoch bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM staging_journal.lock();
    UPDATE staging_journal.run SET expires = NULL, claim = NULL, holder = NULL, progress = NULL
     WHERE id = a_run AND epoch = an_epoch;
END
$$;

-- Shows how far the run is. Nothing depends on that, so nobody waits for it.
CREATE OR REPLACE FUNCTION staging_journal.show(a_run uuid, an_epoch bigint, a_progress text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE staging_journal.run SET progress = a_progress
     WHERE id = a_run AND epoch = an_epoch AND expires > clock_timestamp();
END
$$;

-- Stores what is too large for an event; storing it again is fine.
CREATE OR REPLACE FUNCTION staging_journal.attach(hash bytea, bytes bytea) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    INSERT INTO staging_journal.attachment VALUES (hash, bytes) ON CONFLICT DO NOTHING;
END
$$;
