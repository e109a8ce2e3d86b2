//! A service file: sections of `keyword=value`, without blanks around the sign (PostgreSQL 15, 34.17; `parseServiceFile` of
//! fe-connect.c).

use std::collections::BTreeMap;

/// Why a service file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// A line is no `keyword=value`, or its keyword is none of libpq's.
    #[error("line {line} is not a parameter of a connection")]
    Syntax {
        /// From 1.
        line: usize,
    },
    /// A service in a service.
    #[error("line {line} names another service, which libpq does not allow")]
    Nested {
        /// From 1.
        line: usize,
    },
    /// The rest would have to be looked up elsewhere.
    #[error("line {line} refers to an LDAP server, which pg_staging does not ask")]
    Ldap {
        /// From 1.
        line: usize,
    },
}

/// What libpq knows, from 9.6 to 18.
const KEYWORDS: &[&str] = &[
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "options",
    "passfile",
    "password",
    "port",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "scram_client_key",
    "scram_server_key",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslkeylogfile",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "tty",
    "user",
];

/// The parameters of a service; `None` where the file does not define it. Of two lines for one keyword the first counts, and
/// so does the first of two sections of that name.
pub(super) fn parse(text: &str, service: &str) -> Result<Option<BTreeMap<String, String>>, Fault> {
    let mut found: Option<BTreeMap<String, String>> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            let is_it = header.strip_prefix(service).is_some_and(|rest| rest.starts_with(']'));
            found = is_it.then(BTreeMap::new);
        } else if let Some(parameters) = &mut found {
            let (keyword, value) = parameter(line, index + 1)?;
            parameters.entry(keyword).or_insert(value);
        }
    }
    Ok(found)
}

fn parameter(text: &str, line: usize) -> Result<(String, String), Fault> {
    if text.starts_with("ldap") {
        return Err(Fault::Ldap { line });
    }
    match text.split_once('=') {
        Some(("service", _)) => Err(Fault::Nested { line }),
        Some((keyword, value)) if KEYWORDS.contains(&keyword) => Ok((keyword.to_owned(), value.to_owned())),
        _ => Err(Fault::Syntax { line }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<Option<&[(&str, &str)]>, Fault>) {
        let expected = expected.map(|parameters| {
            let owned = |(keyword, value): &(&str, &str)| ((*keyword).to_owned(), (*value).to_owned());
            parameters.map(|parameters| parameters.iter().map(owned).collect::<BTreeMap<_, _>>())
        });
        assert_eq!(parse(text, "staging"), expected, "{text}");
    }

    #[test]
    fn a_service_is_the_lines_below_its_header() {
        check("", Ok(None));
        check("[production]\npassword=no\n", Ok(None));
        check("[staging]\n", Ok(Some(&[])));
        check(
            "# mine\n[production]\npassword=no\nnonsense\n\n  [staging]\t\r\n  password=a=b # c \n#sslmode=no\nsslmode=require\n[other]\nsslmode=x\n[staging]\nuser=x",
            Ok(Some(&[("password", "a=b # c"), ("sslmode", "require")])),
        );
        check("[staging]\nsslmode=require\nsslmode=disable\n", Ok(Some(&[("sslmode", "require")])));
        check("[staging] and more\nport=1\n", Ok(Some(&[("port", "1")])));
        check("[staging2]\nport=1\n", Ok(None));
        check("[staging]\npassword=\n", Ok(Some(&[("password", "")])));
    }

    #[test]
    fn what_libpq_would_refuse_is_refused_with_its_line() {
        check("[staging]\n\nnonsense\n", Err(Fault::Syntax { line: 3 }));
        check("[staging]\npassword = blanks\n", Err(Fault::Syntax { line: 2 }));
        check("[staging]\npasswort=x\n", Err(Fault::Syntax { line: 2 }));
        check("[staging]\nservice=other\n", Err(Fault::Nested { line: 2 }));
        check("[staging]\nldap://ldap.example.com/dc=example\n", Err(Fault::Ldap { line: 2 }));
    }
}
