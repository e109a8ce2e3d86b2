//! What reaches psql of a script, however it comes.

use super::*;

/// What reaches psql, and what is left out.
fn through(script: &str) -> Result<(String, Vec<String>), ScriptError> {
    let mut whole = None;
    for piece in [1, 2, 7, 4096] {
        let mut looked_at = Script::new(HashSet::from(["app".to_owned(), "Weird \"Role".to_owned()]));
        let mut out = Vec::new();
        let came = script.as_bytes().chunks(piece).try_for_each(|bytes| looked_at.take(bytes, &mut out));
        let told = came.and_then(|()| looked_at.end(&mut out));
        let told = told.map(|left_out| (String::from_utf8(out).unwrap(), left_out));
        let first = whole.get_or_insert_with(|| told.clone());
        assert_eq!(&told, first, "in pieces of {piece}");
    }
    whole.unwrap()
}

#[track_caller]
fn is_untouched(script: &str) {
    assert_eq!(through(script), Ok((script.to_owned(), Vec::new())));
}

#[test]
fn what_a_dump_holds_goes_through_as_it_is() {
    is_untouched("");
    is_untouched("SET statement_timeout = 0;\nSELECT pg_catalog.set_config('search_path', '', false);\n");
    is_untouched(
        "CREATE TABLE public.t (\n    id integer,\n    \"a;b\" text DEFAULT 'it''s; \\'::text\n);\n",
    );
    is_untouched(
        "COPY public.t (id, b) FROM stdin;\n1\tCOMMIT;\n\\\\.\n\\.x\n\\connect x\n\\.\n\n\nSELECT 1;\n",
    );
    is_untouched("COPY public.t FROM stdin;\r\n1\r\n\\.\r\nSELECT 1;");
    is_untouched("COPY public.t FROM stdin;\n\\.\n");
    is_untouched("COPY (SELECT 1 FROM stdin) TO '/dev/null';\nSELECT 'a\n';");
    is_untouched(
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $_$ BEGIN; $x \\connect $1; COMMIT; END $_$;\n",
    );
    is_untouched("CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT '\\' $$;\nSELECT $1;\n");
    is_untouched(
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql\n BEGIN ATOMIC\n SELECT CASE WHEN true THEN 1 END;\n SELECT 2;\nEND;\nSELECT 1;\n",
    );
    is_untouched("CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (1); DELETE FROM v);\n");
    is_untouched("-- a comment; \\connect x\n/* and; /* another */ \\! */\nSELECT 1 - 2 / 3;\n");
    is_untouched("SELECT E'\\'; \\\\', e'a''\\\\'\n 'b\\'', U&'\\0041', B'1', a_e'\\' ;\n");
    is_untouched("ALTER TABLE public.t OWNER TO somebody;\nPREPARE p AS SELECT 1;\nEND_OF_WORDS;\n");
    is_untouched("GRANT SELECT ON TABLE public.t TO app;\nREVOKE ALL ON SCHEMA public FROM PUBLIC;\n");
    is_untouched("GRANT SELECT ON TABLE public.t TO \"Weird \"\"Role\" WITH GRANT OPTION;\n");
}

#[test]
fn transactions_of_large_objects_and_guards_against_commands_are_left_out() {
    let script =
        "\\restrict abc\n\nBEGIN;\n\nSELECT pg_catalog.lo_open('1', 131072);\nCOMMIT;\n\n\\unrestrict abc\n";
    let rest = "\n\n\n\nSELECT pg_catalog.lo_open('1', 131072);\n\n\n\n";
    assert_eq!(through(script), Ok((rest.to_owned(), Vec::new())));
    let script = "START TRANSACTION;SET transaction_timeout = 0;\nSELECT 1;END;";
    assert_eq!(through(script), Ok(("\nSELECT 1;".to_owned(), Vec::new())));
}

#[test]
fn privileges_of_roles_that_do_not_exist_are_left_out_and_told() {
    let script = "GRANT SELECT ON TABLE public.t TO app;\nGRANT ALL ON TABLE public.t\n TO gone;\nALTER DEFAULT PRIVILEGES FOR ROLE gone GRANT SELECT ON TABLES TO app;\n";
    let told = vec![
        "role \"gone\" does not exist (GRANT ALL ON TABLE public.t TO gone)".to_owned(),
        "role \"gone\" does not exist (ALTER DEFAULT PRIVILEGES FOR ROLE gone GRANT SELECT ON TABLES TO app)"
            .to_owned(),
    ];
    let rest = "GRANT SELECT ON TABLE public.t TO app;\n\n\n\n";
    assert_eq!(through(script), Ok((rest.to_owned(), told)));
}

#[test]
fn what_could_leave_the_copy_or_the_transaction_is_refused() {
    let command = |line, command: &str| ScriptError::Command { line, command: command.to_owned() };
    let transaction =
        |line, statement: &str| ScriptError::Transaction { line, statement: statement.to_owned() };
    let database = |line, statement: &str| ScriptError::Database { line, statement: statement.to_owned() };
    for (script, error) in [
        ("SELECT 1;\n\\connect shop\n", command(2, "\\connect")),
        ("\\! rm -rf /", command(1, "\\!")),
        ("SELECT 1 \\g /tmp/x\n", command(1, "\\g")),
        ("SELECT 'a\\' \\gexec\n", command(1, "\\gexec")),
        ("SELECT 1 \\restrict\n", command(1, "\\restrict")),
        ("COPY t FROM stdin;\n\\.\n\\c x\n", command(3, "\\c")),
        ("SET standard_conforming_strings = off;\nSELECT 'a\\'';\n\\c x\n';", command(3, "\\c")),
        ("SELECT E'a' '\\' \\! x\n';", command(1, "\\!")),
        ("SELECT E'a'\n--\n'x\\''; \\! x\n';", command(3, "\\!")),
        ("-- a comment\r\\! x\n", command(1, "\\!")),
        ("SELECT 1$$\\! x\n$$;", ScriptError::Unclear { line: 1, what: "a dollar right behind a number" }),
        ("COPY t FROM stdin;\n1\0\n\\.\n\\! x\n", ScriptError::Unclear { line: 2, what: "a NUL" }),
        ("SELECT $$\0$$;", ScriptError::Unclear { line: 1, what: "a NUL" }),
        ("ROLLBACK;", transaction(1, "ROLLBACK")),
        ("\nCOMMIT AND CHAIN;", transaction(2, "COMMIT AND CHAIN")),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE;", transaction(1, "BEGIN ISOLATION LEVEL SERIALIZABLE")),
        ("PREPARE TRANSACTION 'x';", transaction(1, "PREPARE TRANSACTION")),
        ("CREATE FUNCTION f() AS 'x';COMMIT PREPARED 'x';", transaction(1, "COMMIT PREPARED 'x'")),
        ("-- x\nCREATE DATABASE shop;", database(2, "CREATE DATABASE")),
        ("ALTER DATABASE shop SET x = 1;", database(1, "ALTER DATABASE")),
        ("COPY t FROM stdin; SELECT 1;\n", ScriptError::BehindCopy { line: 1 }),
        ("SET client_encoding = 'SJIS';", ScriptError::Encoding { encoding: "sjis".to_owned() }),
    ] {
        assert_eq!(through(script), Err(error), "{script:?}");
    }
}

#[test]
fn a_script_that_is_cut_is_told_from_one_that_is_whole() {
    let dump = "--\n-- PostgreSQL database dump\n--\n\nCREATE TABLE t (a text DEFAULT $$x$$);\n\nCOPY t (a) FROM stdin;\nx\n\\.\n\n\n--\n-- PostgreSQL database dump complete\n--\n\n";
    is_untouched(dump);
    let complete = dump.find("complete").unwrap() + "complete".len();
    for end in "--\n-- PostgreSQL database dump\n".len()..complete {
        let cut = through(&dump[..end]);
        assert!(matches!(cut, Err(ScriptError::Cut { .. })), "{end}: {cut:?}");
    }
    let within = |script: &str| through(script).unwrap_err().to_string();
    assert_eq!(within("COPY t FROM stdin;\n1\n"), "it ends in line 3, within the rows of a table");
    assert_eq!(within("SELECT 'a\n"), "it ends in line 2, within a statement");
    assert_eq!(
        within("-- PostgreSQL database dump\nSELECT 1;\n"),
        "it ends in line 3, before pg_dump says that it is complete"
    );
}
