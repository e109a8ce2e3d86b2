//! A password file: lines of `host:port:database:user:password`, of which the first that fits counts (PostgreSQL 15, 34.16;
//! `passwordFromFile` and `pwdfMatchesString` of fe-connect.c).

/// The folders that libpq may take for the default one of sockets: as Debian builds it, and as it comes.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// What a password is wanted for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'w> {
    /// Host name, address, or the folder of a socket.
    pub(super) host: &'w str,
    /// Port.
    pub(super) port: &'w str,
    /// Database.
    pub(super) database: &'w str,
    /// Role.
    pub(super) user: &'w str,
}

/// The password in the first line that fits, and that line's number, from 1.
pub(super) fn find(text: &str, wanted: &Wanted<'_>) -> Option<(usize, String)> {
    let host = if SOCKET_FOLDERS.contains(&wanted.host) { "localhost" } else { wanted.host };
    let fields = [host, wanted.port, wanted.database, wanted.user];
    let lines = text.split('\n').enumerate().filter(|(_, line)| !line.starts_with('#'));
    lines
        .filter_map(|(index, line)| {
            let line = line.trim_end_matches('\r');
            let rest = fields.iter().try_fold(line, |rest, field| after(rest, field))?;
            Some((index + 1, unescaped(rest)))
        })
        .next()
}

/// What comes behind a field that is `value`, or a star.
fn after<'l>(line: &'l str, value: &str) -> Option<&'l str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut rest = line.chars();
    let mut value = value.chars();
    loop {
        let (letter, escaped) = match rest.next()? {
            '\\' => (rest.next()?, true),
            letter => (letter, false),
        };
        match value.next() {
            None if letter == ':' && !escaped => return Some(rest.as_str()),
            Some(expected) if expected == letter => {}
            _ => return None,
        }
    }
}

/// The password ends at the end of the line, or before a colon.
fn unescaped(text: &str) -> String {
    let mut password = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ':' => break,
            '\\' => password.push(letters.next().unwrap_or('\\')),
            letter => password.push(letter),
        }
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, password: Option<(usize, &str)>) {
        let wanted = Wanted { host: "db.example.com", port: "5432", database: "shop", user: "postgres" };
        let found = find(text, &wanted);
        assert_eq!(found.as_ref().map(|(line, password)| (*line, password.as_str())), password, "{text}");
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        check("", None);
        check("db.example.com:5432:shop:postgres:secret", Some((1, "secret")));
        check("*:*:*:*:any\n", Some((1, "any")));
        check(
            "other:*:*:*:a\n*:5433:*:*:b\n*:*:crm:*:c\n*:*:*:shop:d\n*:5432:shop:*:e\n*:*:*:*:f",
            Some((5, "e")),
        );
        check("# db.example.com:5432:shop:postgres:no\r\n\r\n*:*:*:*:yes\r\n", Some((3, "yes")));
        check(" *:*:*:*:a blank is part of the host", None);
        check("db.example.com:5432:shop:postgres", None);
        check("db.example:5432:shop:postgres:shorter", None);
        check("db.example.com.org:5432:shop:postgres:longer", None);
        check("*x:*:*:*:a star stands alone", None);
    }

    #[test]
    fn a_backslash_takes_the_meaning_of_what_follows() {
        check(r"*:*:*:*:a\:b\\c", Some((1, r"a:b\c")));
        check(r"*:*:*:*:plain\p", Some((1, "plainp")));
        check(r"*:*:*:*:end\", Some((1, r"end\")));
        check("*:*:*:*:ends here:not this", Some((1, "ends here")));
        check(r"db\.example.com:5432:shop:postgres:x", Some((1, "x")));
        let wanted = Wanted { host: "::1", port: "5432", database: r"a\b", user: "postgres" };
        assert_eq!(find(r"\:\:1:*:a\\b:*:six", &wanted), Some((1, "six".to_owned())));
        // A colon is no end of the field as long as the value goes on.
        assert_eq!(find("::1:*:*:*:six", &wanted), Some((1, "six".to_owned())));
        assert_eq!(find(r"\:\:1\:*:*:*:x", &wanted), None);
    }

    #[test]
    fn localhost_is_the_socket_in_the_default_folder() {
        for (host, found) in
            [("/var/run/postgresql", true), ("/tmp", true), ("localhost", true), ("/srv/pg", false)]
        {
            let wanted = Wanted { host, port: "5432", database: "shop", user: "postgres" };
            assert_eq!(find("localhost:*:*:*:x", &wanted).is_some(), found, "{host}");
        }
        let wanted = Wanted { host: "/srv/pg", port: "5432", database: "shop", user: "postgres" };
        assert!(find("/srv/pg:*:*:*:x", &wanted).is_some());
    }

    #[test]
    fn a_line_of_bytes_that_are_no_text_hides_no_other() {
        let text = String::from_utf8_lossy(b"\xff:*:*:*:a\n*:*:*:*:b\n").into_owned();
        check(&text, Some((2, "b")));
    }
}
