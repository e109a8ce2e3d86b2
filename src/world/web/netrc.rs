//! netrc: who one is on which host, in the file that ftp, curl and git read as well (GNU inetutils manual, "The .netrc
//! file").

/// A user, and the password where there is one.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) password: Option<String>,
}

/// What the file has for a host: the first `machine` of that name, else `default`. Host names are alike in any case.
/// Words that mean nothing are passed over, as every reader of these files does.
pub(super) fn find(text: &str, host: &str) -> Option<User> {
    let host = host.trim_matches(['[', ']']);
    let mut words = Words { rest: text };
    let mut found: Option<User> = None;
    let mut fallback: Option<User> = None;
    // Whose words these are: the host's, everybody's, or those of another host.
    let mut owner = Owner::Another;
    while let Some(word) = words.next() {
        match word.as_str() {
            "machine" if found.is_some() => break,
            "machine" => {
                let is_it = words.next().is_some_and(|name| name.eq_ignore_ascii_case(host));
                owner = if is_it { Owner::Host } else { Owner::Another };
                found = is_it.then(User::nobody);
            }
            "default" if found.is_some() => break,
            "default" => {
                owner = Owner::Everybody;
                fallback = fallback.or_else(|| Some(User::nobody()));
            }
            "login" | "user" => {
                if let (Some(name), Some(user)) = (words.next(), owner.of(&mut found, &mut fallback)) {
                    user.name = name;
                }
            }
            "password" | "passwd" => {
                let password = words.next();
                if let Some(user) = owner.of(&mut found, &mut fallback) {
                    user.password = password;
                }
            }
            "account" => drop(words.next()),
            "macdef" => words.skip_macro(),
            _ => {}
        }
    }
    found.or(fallback).filter(|user| !user.name.is_empty() || user.password.is_some())
}

enum Owner {
    Host,
    Everybody,
    Another,
}

impl Owner {
    fn of<'a>(&self, host: &'a mut Option<User>, everybody: &'a mut Option<User>) -> Option<&'a mut User> {
        match self {
            Owner::Host => host.as_mut(),
            Owner::Everybody => everybody.as_mut(),
            Owner::Another => None,
        }
    }
}

impl User {
    fn nobody() -> User {
        User { name: String::new(), password: None }
    }
}

/// The words of the file: between white space, or in double quotes, where a backslash escapes. A `#` at a word's
/// begin starts a comment; passwords that begin with one are written in quotes.
struct Words<'a> {
    rest: &'a str,
}

impl Words<'_> {
    fn next(&mut self) -> Option<String> {
        loop {
            self.rest = self.rest.trim_start();
            if !self.rest.starts_with('#') {
                break;
            }
            self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
        }
        if self.rest.is_empty() {
            return None;
        }
        if let Some(quoted) = self.rest.strip_prefix('"') {
            return Some(self.quoted(quoted));
        }
        let end = self.rest.find(char::is_whitespace).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(word.to_owned())
    }

    fn quoted(&mut self, text: &'_ str) -> String {
        let mut word = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => word.extend(chars.next().map(|escaped| match escaped {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                })),
                c => word.push(c),
            }
        }
        let read = text.len() - chars.as_str().len();
        // One more for the quotation mark that it began with.
        self.rest = self.rest.get(1 + read..).unwrap_or_default();
        word
    }

    /// A macro goes on to the next empty line.
    fn skip_macro(&mut self) {
        let text = self.rest;
        let mut at = text.find('\n').map_or(text.len(), |line| line + 1);
        while let Some(line) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let length = line.find('\n').map_or(line.len(), |end| end + 1);
            at += length;
            if line.get(..length).is_some_and(|line| line.trim().is_empty()) {
                break;
            }
        }
        self.rest = text.get(at..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, host: &str, expected: Option<(&str, Option<&str>)>) {
        let found = find(text, host);
        let found = found.as_ref().map(|user| (user.name.as_str(), user.password.as_deref()));
        assert_eq!(found, expected, "{host} in {text}");
    }

    #[test]
    fn a_host_finds_its_user_and_no_other_host_does() {
        let text = "# mine\nmachine a.example login ann password one\n\
                    machine b.example\n\tlogin bob\n\tpassword two\nmachine a.example login late password late\n";
        check(text, "a.example", Some(("ann", Some("one"))));
        check(text, "A.Example", Some(("ann", Some("one"))));
        check(text, "b.example", Some(("bob", Some("two"))));
        check(text, "c.example", None);
        check(text, "example", None);
        check("", "a.example", None);
    }

    #[test]
    fn the_default_is_for_every_host_that_is_not_named() {
        let text = "machine a.example login ann password one default login anonymous password guest\n";
        check(text, "a.example", Some(("ann", Some("one"))));
        check(text, "b.example", Some(("anonymous", Some("guest"))));
        check("default login d password p\nmachine a login b password c", "a", Some(("b", Some("c"))));
    }

    #[test]
    fn words_may_be_quoted_and_hold_what_would_end_them() {
        check(
            "machine a login \"ann smith\" password \"o\\\"n\\\\e #1\\n\" # comment\n",
            "a",
            Some(("ann smith", Some("o\"n\\e #1\n"))),
        );
        check("machine a login b password c\"d#e", "a", Some(("b", Some("c\"d#e"))));
        check("machine a login \"\" password \"open", "a", Some(("", Some("open"))));
    }

    #[test]
    fn what_is_not_about_users_is_passed_over() {
        let text = "macdef init\nmachine a login wrong password wrong\ncd pub\n\n\
                    machine a account x login ann password one\n";
        check(text, "a", Some(("ann", Some("one"))));
        check("machine a nonsense login ann", "a", Some(("ann", None)));
        check("machine a", "a", None);
        check("machine a login", "a", None);
        check("machine ::1 login six password p", "[::1]", Some(("six", Some("p"))));
    }
}
