//! What libpq takes from its surroundings where a connection leaves something open, so that our own connections and those of
//! psql and pg_restore are made alike: the service, then the environment, then the files below `~` (PostgreSQL 15, 34.1.2 and
//! 34.15 to 34.17; `conninfo_add_defaults` and `connectOptions2` of fe-connect.c).
//!
//! Host, port, role and database are always given by the configuration, so what names those is passed over, `hostaddr`
//! included.
//!
//! - `service` reads a service file, `password` a password file: text in, values out.

mod password;
mod service;

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::password::Wanted;
use super::postgres::Server;
use super::{Trouble, machine};

/// Where PostgreSQL looks for `pg_service.conf` when `PGSYSCONFDIR` says nothing, as Debian builds it and as it comes.
const SYSTEM_FOLDERS: [&str; 2] = ["/etc/postgresql-common", "/usr/local/pgsql/etc"];

/// What a connection takes from its surroundings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The password.
    pub password: Option<Password>,
    /// A password file that was not read, and why not.
    pub refused_file: Option<String>,
    /// How long making the connection may take, where that is said.
    pub connect_timeout: Option<Limit>,
    /// Command-line options for the server.
    pub options: Option<String>,
    /// `channel_binding`, where it is not left to the server.
    pub channel_binding: Option<Binding>,
    /// TLS.
    pub tls: Tls,
}

/// A password, and where it was found.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    /// The password; never shown.
    pub text: String,
    /// Where it was found, for people.
    pub from: String,
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Password(from {})", self.from)
    }
}

/// How long making a connection may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// So long.
    Within(Duration),
    /// As long as it takes.
    None,
}

/// Whether the password must be bound to the TLS channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Never.
    Disable,
    /// Always.
    Require,
}

/// How much of TLS is wanted: `sslmode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// None.
    Disable,
    /// When the server takes no connection without.
    Allow,
    /// When the server offers it.
    #[default]
    Prefer,
    /// Nothing without it.
    Require,
    /// The server's certificate is signed by an authority that we know.
    VerifyCa,
    /// It is, and names the host.
    VerifyFull,
}

/// TLS, as far as a connection wants it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// `sslmode`.
    pub mode: Mode,
    /// Who is trusted; nobody is asked where this is nothing.
    pub authorities: Option<Authorities>,
    /// The file of revoked certificates.
    pub revoked: Option<PathBuf>,
    /// The files of our own certificate and its key.
    pub ours: Option<(PathBuf, PathBuf)>,
    /// Nothing older than TLS 1.3.
    pub only_newest: bool,
}

/// Who is trusted to sign a server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorities {
    /// Those of the operating system.
    System,
    /// Those in a file.
    File(PathBuf),
}

impl Surroundings {
    /// What libpq would add to a connection of ours, by the environment of this process.
    pub fn of(server: &Server, database: &str) -> Result<Surroundings, Trouble> {
        Surroundings::given(BTreeMap::new(), server, database)
    }

    /// The same where a connection string gives some parameters, which win.
    pub fn given(
        parameters: BTreeMap<String, String>,
        server: &Server,
        database: &str,
    ) -> Result<Surroundings, Trouble> {
        let variable = |name: &str| machine::variable(name).map(|value| value.to_string_lossy().into_owned());
        Looking::new(parameters, &variable)?.surroundings(server, database)
    }
}

/// The sources, in the order in which they count.
struct Looking<'e> {
    given: BTreeMap<String, String>,
    variable: &'e dyn Fn(&str) -> Option<String>,
    service: Option<Service>,
}

/// A service: its parameters, and where they stand.
struct Service {
    name: String,
    file: PathBuf,
    parameters: BTreeMap<String, String>,
}

/// A value, and where it was found.
struct Found {
    value: String,
    from: String,
}

impl<'e> Looking<'e> {
    fn new(
        given: BTreeMap<String, String>,
        variable: &'e dyn Fn(&str) -> Option<String>,
    ) -> Result<Looking<'e>, Trouble> {
        let mut looking = Looking { given, variable, service: None };
        if let Some(name) = variable("PGSERVICE") {
            looking.service = Some(looking.find_service(name)?);
        }
        Ok(looking)
    }

    /// `parseServiceInfo`: a file that is named must be there; of the others the first that defines the service counts.
    fn find_service(&self, name: String) -> Result<Service, Trouble> {
        let mut files: Vec<PathBuf> = Vec::new();
        match (self.variable)("PGSERVICEFILE").map(PathBuf::from) {
            Some(file) if !file.exists() => {
                return Err(Trouble::new(format!("there is no service file {}", file.display()))
                    .hint("correct or unset PGSERVICEFILE"));
            }
            Some(file) => files.push(file),
            None => files.extend(self.below_home(".pg_service.conf")),
        }
        let folders = (self.variable)("PGSYSCONFDIR")
            .map_or_else(|| SYSTEM_FOLDERS.map(PathBuf::from).to_vec(), |folder| vec![folder.into()]);
        files.extend(folders.into_iter().map(|folder| folder.join("pg_service.conf")));
        for file in files.into_iter().filter(|file| file.exists()) {
            let cannot = || Trouble::new(format!("cannot use service '{name}' of {}", file.display()));
            let text = std::fs::read(&file).map_err(|error| cannot().because(error))?;
            let text = String::from_utf8_lossy(&text);
            let found = service::parse(&text, &name)
                .map_err(|fault| cannot().because(fault).hint("correct the file"))?;
            if let Some(parameters) = found {
                return Ok(Service { name, file, parameters });
            }
        }
        Err(Trouble::new(format!("there is no definition of service '{name}'"))
            .hint("correct or unset PGSERVICE, or add the service to ~/.pg_service.conf"))
    }

    /// What is given, then the service, then the environment. What is set to nothing is not set.
    fn find(&self, keyword: &str, variable: &str) -> Option<Found> {
        if let Some(value) = self.given.get(keyword) {
            let found = Found { value: value.clone(), from: "the URL".to_owned() };
            return Some(found).filter(|found| !found.value.is_empty());
        }
        if let Some(service) = &self.service
            && let Some(value) = service.parameters.get(keyword)
        {
            let from = format!("service '{}' of {}", service.name, service.file.display());
            return Some(Found { value: value.clone(), from }).filter(|found| !found.value.is_empty());
        }
        (self.variable)(variable).map(|value| Found { value, from: variable.to_owned() })
    }

    fn below_home(&self, path: &str) -> Option<PathBuf> {
        (self.variable)("HOME").map(|home| PathBuf::from(home).join(path))
    }

    /// A file that is named, else one below `~` that is there.
    fn file(&self, keyword: &str, variable: &str, usual: &str) -> Option<PathBuf> {
        let named = self.find(keyword, variable).map(|found| PathBuf::from(found.value));
        named.or_else(|| self.below_home(usual).filter(|path| path.exists()))
    }

    fn surroundings(&self, server: &Server, database: &str) -> Result<Surroundings, Trouble> {
        self.refuse_what_we_cannot()?;
        let (password, refused_file) = self.password(server, database);
        Ok(Surroundings {
            password,
            refused_file,
            connect_timeout: self.connect_timeout()?,
            options: self.find("options", "PGOPTIONS").map(|found| found.value),
            channel_binding: self.channel_binding()?,
            tls: self.tls()?,
        })
    }

    /// What somebody asks for to be safer, and we cannot give, must not be passed over in silence.
    fn refuse_what_we_cannot(&self) -> Result<(), Trouble> {
        let demands = [
            ("require_auth", "PGREQUIREAUTH"),
            ("requirepeer", "PGREQUIREPEER"),
            ("sslcrldir", "PGSSLCRLDIR"),
            ("gssencmode", "PGGSSENCMODE"),
        ];
        for (keyword, variable) in demands {
            match self.find(keyword, variable) {
                Some(found) if keyword != "gssencmode" || found.value == "require" => {
                    return Err(Trouble::new(format!("pg_staging cannot do what {keyword} asks for"))
                        .because(format!("it is set to '{}' by {}", found.value, found.from))
                        .hint("unset it for pg_staging"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn password(&self, server: &Server, database: &str) -> (Option<Password>, Option<String>) {
        if let Some(Found { value: text, from }) = self.find("password", "PGPASSWORD") {
            return (Some(Password { text, from }), None);
        }
        let named = self.find("passfile", "PGPASSFILE").map(|found| PathBuf::from(found.value));
        let Some(path) = named.or_else(|| self.below_home(".pgpass")) else { return (None, None) };
        let Ok(metadata) = std::fs::metadata(&path) else { return (None, None) };
        if let Some(why) = unfit(&path, &metadata) {
            tracing::warn!("{why}");
            return (None, Some(why));
        }
        let Ok(bytes) = std::fs::read(&path) else { return (None, None) };
        let port = server.port.to_string();
        let wanted = Wanted { host: &server.host, port: &port, database, user: &server.user };
        let found = password::find(&String::from_utf8_lossy(&bytes), &wanted);
        let password =
            found.map(|(line, text)| Password { text, from: format!("{}, line {line}", path.display()) });
        (password, None)
    }

    /// In seconds; 0 and less mean no limit, and 1 means 2.
    fn connect_timeout(&self) -> Result<Option<Limit>, Trouble> {
        let Some(found) = self.find("connect_timeout", "PGCONNECT_TIMEOUT") else { return Ok(None) };
        let seconds: i32 = found
            .value
            .trim()
            .parse()
            .map_err(|_| found.not_understood("connect_timeout", "a number of seconds"))?;
        Ok(Some(match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Limit::Within(Duration::from_secs(seconds.max(2))),
            _ => Limit::None,
        }))
    }

    fn channel_binding(&self) -> Result<Option<Binding>, Trouble> {
        let Some(found) = self.find("channel_binding", "PGCHANNELBINDING") else { return Ok(None) };
        match found.value.as_str() {
            "disable" => Ok(Some(Binding::Disable)),
            "prefer" => Ok(None),
            "require" => Ok(Some(Binding::Require)),
            _ => Err(found.not_understood("channel_binding", "disable, prefer or require")),
        }
    }

    fn tls(&self) -> Result<Tls, Trouble> {
        let system = self.find("sslrootcert", "PGSSLROOTCERT").is_some_and(|found| found.value == "system");
        let file =
            || self.file("sslrootcert", "PGSSLROOTCERT", ".postgresql/root.crt").filter(|path| path.exists());
        let authorities = if system { Some(Authorities::System) } else { file().map(Authorities::File) };
        let mode = self.mode(system)?;
        if mode >= Mode::VerifyCa && authorities.is_none() {
            let named = self.find("sslrootcert", "PGSSLROOTCERT").map(|found| found.value);
            let named = named.unwrap_or_else(|| "~/.postgresql/root.crt".to_owned());
            return Err(Trouble::new(format!("there is no root certificate file {named}"))
                .because("sslmode asks for the server's certificate to be verified")
                .hint("put the certificate of the authority that signed the server's there, or set PGSSLROOTCERT"));
        }
        let newest = self.find("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION");
        Ok(Tls {
            mode,
            authorities,
            revoked: self.file("sslcrl", "PGSSLCRL", ".postgresql/root.crl").filter(|path| path.exists()),
            ours: self.our_certificate()?,
            only_newest: newest.is_some_and(|found| found.value.eq_ignore_ascii_case("TLSv1.3")),
        })
    }

    fn mode(&self, system: bool) -> Result<Mode, Trouble> {
        let Some(found) = self.find("sslmode", "PGSSLMODE") else {
            let required =
                self.find("requiressl", "PGREQUIRESSL").is_some_and(|found| found.value.starts_with('1'));
            return Ok(match (system, required) {
                (true, _) => Mode::VerifyFull,
                (false, true) => Mode::Require,
                (false, false) => Mode::default(),
            });
        };
        let mode = match found.value.as_str() {
            "disable" => Mode::Disable,
            "allow" => Mode::Allow,
            "prefer" => Mode::Prefer,
            "require" => Mode::Require,
            "verify-ca" => Mode::VerifyCa,
            "verify-full" => Mode::VerifyFull,
            _ => {
                let allowed = "disable, allow, prefer, require, verify-ca or verify-full";
                return Err(found.not_understood("sslmode", allowed));
            }
        };
        if system && mode != Mode::VerifyFull {
            return Err(found.not_understood("sslmode", "verify-full where sslrootcert is system"));
        }
        Ok(mode)
    }

    fn our_certificate(&self) -> Result<Option<(PathBuf, PathBuf)>, Trouble> {
        let certificate =
            self.file("sslcert", "PGSSLCERT", ".postgresql/postgresql.crt").filter(|path| path.exists());
        let Some(certificate) = certificate else { return Ok(None) };
        let key = self.file("sslkey", "PGSSLKEY", ".postgresql/postgresql.key").filter(|path| path.exists());
        let Some(key) = key else {
            return Err(Trouble::new(format!(
                "there is a certificate {}, and no key for it",
                certificate.display()
            ))
            .hint("put the key into ~/.postgresql/postgresql.key, or name it with PGSSLKEY"));
        };
        let metadata = std::fs::metadata(&key)
            .map_err(|error| Trouble::new(format!("cannot look at {}", key.display())).because(error))?;
        // A key that root owns may be readable by a group (34.19.2).
        let allowed = if metadata.uid() == 0 { 0o740 } else { 0o700 };
        if metadata.permissions().mode() & 0o777 & !allowed != 0 {
            return Err(Trouble::new(format!("{} can be read by others", key.display()))
                .hint(format!("chmod 600 {}", key.display())));
        }
        Ok(Some((certificate, key)))
    }
}

impl Found {
    fn not_understood(&self, keyword: &str, allowed: &str) -> Trouble {
        Trouble::new(format!("{keyword} cannot be '{}'", self.value))
            .because(format!("it comes from {}", self.from))
            .hint(format!("{keyword} takes {allowed}"))
    }
}

/// Why a password file is not read: `passwordFromFile` of fe-connect.c.
fn unfit(path: &Path, metadata: &std::fs::Metadata) -> Option<String> {
    let path = path.display();
    if !metadata.is_file() {
        return Some(format!("password file {path} is not a plain file, and was not read"));
    }
    (metadata.permissions().mode() & 0o077 != 0).then(|| {
        format!("password file {path} has group or world access, and was not read (chmod 600 {path})")
    })
}

#[cfg(test)]
mod tests;
