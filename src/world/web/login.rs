//! How one gets into the backup server: with the user of its URL, else with the token in a file, else with what netrc
//! has for its host.
//!
//! Files are read anew for every client that is made, so that a run which goes on tomorrow takes tomorrow's token. What
//! they hold goes into the header of requests to that one server, and nowhere else.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use reqwest::RequestBuilder;
use url::{Origin, Url};

use super::netrc::{self, User};
use super::{Web, WebError, WebOptions};
use crate::backup::without_password;
use crate::world::machine;

/// Where the dumps are listed, and what lets us in there.
#[derive(Clone)]
pub struct Access {
    folder: Url,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({})", without_password(&self.folder))
    }
}

impl Access {
    /// The access to the server of `folder`, which may hold user and password, and a query that lets in.
    #[must_use]
    pub fn new(folder: Url, token_file: Option<PathBuf>, ca_file: Option<PathBuf>) -> Self {
        Self { folder, token_file, ca_file }
    }

    /// The page that lists the dumps. Its user and password are left out: a client from [`Access::web`] has them.
    #[must_use]
    pub fn folder(&self) -> Url {
        without_user(self.folder.clone())
    }

    /// The URL that is shown and stored as `text`: when that is the folder, what of its query is not shown is put back.
    ///
    /// # Errors
    /// When `text` is no URL.
    pub fn url(&self, text: &str) -> Result<Url, WebError> {
        let mut url = parse(text)?;
        let folder = self.folder();
        if url.origin() == folder.origin() && url.path() == folder.path() {
            url.set_query(folder.query());
        }
        Ok(url)
    }

    /// A client that gets into this server.
    ///
    /// # Errors
    /// When the file of the token, of authorities, or the one that `NETRC` names cannot be used.
    pub fn web(&self) -> Result<Web, WebError> {
        let login = self.login()?;
        Web::new(&WebOptions { ca_file: self.ca_file.clone(), login, ..WebOptions::default() })
    }

    /// The token's file, when others than its owner may read it.
    #[must_use]
    pub fn loose_token_file(&self) -> Option<&Path> {
        let path = self.token_file.as_deref().filter(|_| !has_user(&self.folder))?;
        let mode = std::fs::metadata(path).ok()?.permissions().mode();
        (mode & 0o044 != 0).then_some(path)
    }

    fn login(&self) -> Result<Option<Login>, WebError> {
        let proof = if has_user(&self.folder) {
            let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            let name = plain(self.folder.username());
            Some(Proof::User(User { name, password: self.folder.password().map(plain) }))
        } else if let Some(path) = &self.token_file {
            Some(Proof::Token(token(path)?))
        } else {
            let host = self.folder.host_str().unwrap_or_default();
            netrc_text()?.and_then(|text| netrc::find(&text, host)).map(Proof::User)
        };
        Ok(proof.map(|proof| Login { server: self.folder.origin(), proof }))
    }
}

/// What to show to one server.
#[derive(Clone)]
pub struct Login {
    server: Origin,
    proof: Proof,
}

#[derive(Clone)]
enum Proof {
    User(User),
    Token(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.server.ascii_serialization())
    }
}

impl Login {
    /// The request with what lets it in, when it goes to that server. A URL with a user of its own speaks for itself.
    pub(super) fn apply(&self, request: RequestBuilder, url: &Url) -> RequestBuilder {
        if url.origin() != self.server || has_user(url) {
            return request;
        }
        match &self.proof {
            Proof::User(user) => request.basic_auth(&user.name, user.password.as_ref()),
            Proof::Token(token) => request.bearer_auth(token),
        }
    }
}

pub(super) fn parse(text: &str) -> Result<Url, WebError> {
    Url::parse(text).map_err(|_| WebError::Scheme { url: text.to_owned() })
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn without_user(mut url: Url) -> Url {
    // It fails for a URL without a host only, which has no user either.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// The token: all that the file holds, but for white space around it.
fn token(path: &Path) -> Result<String, WebError> {
    let unfit = |source: io::Error| WebError::Token { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(unfit)?;
    let token = text.trim();
    let problem = match token {
        "" => "it is empty",
        token if !token.bytes().all(|byte| byte.is_ascii_graphic()) => "it holds more than one word of ASCII",
        token => return Ok(token.to_owned()),
    };
    Err(unfit(io::Error::new(io::ErrorKind::InvalidData, problem)))
}

/// The text of the file that `NETRC` names, which must be there, else of the one at home, which may be missing or
/// somebody else's.
fn netrc_text() -> Result<Option<String>, WebError> {
    let (path, wanted) = match (machine::variable("NETRC"), machine::home()) {
        (Some(named), _) => (PathBuf::from(named), true),
        (None, Some(home)) => (home.join(".netrc"), false),
        (None, None) => return Ok(None),
    };
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error)
            if !wanted
                && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
        {
            Ok(None)
        }
        Err(source) => Err(WebError::Netrc { path, source }),
    }
}
