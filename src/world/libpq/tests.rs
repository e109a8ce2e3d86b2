use std::fs;

use super::*;

/// A home folder, and variables.
struct Scene {
    home: tempfile::TempDir,
    variables: BTreeMap<String, String>,
}

impl Scene {
    fn new(variables: &[(&str, &str)]) -> Scene {
        let home = tempfile::tempdir().unwrap();
        let mut scene = Scene { home, variables: BTreeMap::new() };
        let path = scene.path("");
        scene.set("HOME", &path);
        scene.set("PGSYSCONFDIR", &path);
        for (name, value) in variables {
            scene.set(name, value);
        }
        scene
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    fn write(&self, name: &str, mode: u32, text: &str) -> String {
        let path = self.home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    fn look(&self) -> Result<Surroundings, Trouble> {
        let server = Server { host: "db.example.com".to_owned(), port: 5432, user: "postgres".to_owned() };
        let variable = |name: &str| self.variables.get(name).filter(|value| !value.is_empty()).cloned();
        Looking::new(BTreeMap::new(), &variable)?.surroundings(&server, "shop")
    }

    /// The password, and where it comes from with the home folder as `~`.
    #[track_caller]
    fn password(&self) -> Option<(String, String)> {
        let found = self.look().unwrap().password?;
        Some((found.text, found.from.replace(&self.path(""), "~/")))
    }

    /// Message, cause and hint, with the home folder as `~`.
    #[track_caller]
    fn trouble(&self) -> String {
        let Trouble { message, cause, hint, transient } = self.look().unwrap_err();
        assert!(!transient);
        let lines = [Some(message), cause, hint].into_iter().flatten().collect::<Vec<_>>().join("\n");
        lines.replace(&self.path(""), "~/")
    }
}

fn pair(text: &str, from: &str) -> Option<(String, String)> {
    Some((text.to_owned(), from.to_owned()))
}

#[test]
fn with_nothing_around_there_is_nothing_to_add() {
    assert_eq!(Scene::new(&[]).look().unwrap(), Surroundings::default());
}

#[test]
fn a_password_comes_from_the_service_else_the_environment_else_the_password_file() {
    let mut scene = Scene::new(&[]);
    scene.write(".pgpass", 0o600, "# mine\n*:*:*:*:of the file\n");
    assert_eq!(scene.password(), pair("of the file", "~/.pgpass, line 2"));
    let other = scene.write("other", 0o400, "*:*:*:*:of another\n");
    scene.set("PGPASSFILE", &other);
    assert_eq!(scene.password(), pair("of another", "~/other, line 1"));
    scene.set("PGPASSWORD", "of the environment");
    assert_eq!(scene.password(), pair("of the environment", "PGPASSWORD"));
    scene.write(".pg_service.conf", 0o644, "[staging]\npassword=of the service\n");
    scene.set("PGSERVICE", "staging");
    assert_eq!(scene.password(), pair("of the service", "service 'staging' of ~/.pg_service.conf"));
    scene.write(".pg_service.conf", 0o644, &format!("[staging]\npassfile={other}\n"));
    scene.set("PGPASSWORD", "");
    scene.set("PGPASSFILE", "/nonexistent");
    assert_eq!(scene.password(), pair("of another", "~/other, line 1"));
}

#[test]
fn a_password_file_that_others_can_read_is_none() {
    let mut scene = Scene::new(&[]);
    for mode in [0o640, 0o604, 0o610] {
        scene.write(".pgpass", mode, "*:*:*:*:known\n");
        let found = scene.look().unwrap();
        assert_eq!(found.password, None);
        let why = "has group or world access, and was not read (chmod 600";
        assert!(found.refused_file.unwrap().contains(why));
    }
    let home = scene.path("");
    scene.set("PGPASSFILE", &home);
    assert!(scene.look().unwrap().refused_file.unwrap().contains("is not a plain file"));
}

#[test]
fn a_service_is_looked_for_as_libpq_does() {
    let mut scene = Scene::new(&[("PGSERVICE", "staging")]);
    let nowhere = "there is no definition of service 'staging'\n\
                   correct or unset PGSERVICE, or add the service to ~/.pg_service.conf";
    assert_eq!(scene.trouble(), nowhere);
    scene.write("pg_service.conf", 0o644, "[staging]\npassword=of the system\n");
    assert_eq!(scene.password(), pair("of the system", "service 'staging' of ~/pg_service.conf"));
    // A file of the user's that does not define it leaves it to that of the system.
    scene.write(".pg_service.conf", 0o644, "[production]\npassword=x\n");
    assert_eq!(scene.password(), pair("of the system", "service 'staging' of ~/pg_service.conf"));
    scene.write(".pg_service.conf", 0o644, "[staging]\nhost=elsewhere\nhostaddr=10.0.0.1\npassword=mine\n");
    assert_eq!(scene.password(), pair("mine", "service 'staging' of ~/.pg_service.conf"));
    let named = scene.write("named", 0o644, "[staging]\npassword=named\n");
    scene.set("PGSERVICEFILE", &named);
    assert_eq!(scene.password(), pair("named", "service 'staging' of ~/named"));
    scene.write("named", 0o644, "[staging]\npassword = named\n");
    assert_eq!(
        scene.trouble(),
        "cannot use service 'staging' of ~/named\nline 2 is not a parameter of a connection\ncorrect the file"
    );
    scene.set("PGSERVICEFILE", "/nonexistent");
    assert_eq!(scene.trouble(), "there is no service file /nonexistent\ncorrect or unset PGSERVICEFILE");
}

#[test]
fn limits_and_options_are_as_libpq_understands_them() {
    let limit = |text: &str| Scene::new(&[("PGCONNECT_TIMEOUT", text)]).look().unwrap().connect_timeout;
    assert_eq!(limit("7"), Some(Limit::Within(Duration::from_secs(7))));
    assert_eq!(limit("1"), Some(Limit::Within(Duration::from_secs(2))));
    assert_eq!((limit("0"), limit("-1"), limit("")), (Some(Limit::None), Some(Limit::None), None));
    assert_eq!(
        Scene::new(&[("PGCONNECT_TIMEOUT", "soon")]).trouble(),
        "connect_timeout cannot be 'soon'\nit comes from PGCONNECT_TIMEOUT\nconnect_timeout takes a number of seconds"
    );
    let options = Scene::new(&[("PGOPTIONS", "-c work_mem=1MB")]).look().unwrap().options;
    assert_eq!(options.as_deref(), Some("-c work_mem=1MB"));
    let binding = |text: &str| Scene::new(&[("PGCHANNELBINDING", text)]).look().unwrap().channel_binding;
    assert_eq!((binding("require"), binding("prefer")), (Some(Binding::Require), None));
}

#[test]
fn what_asks_for_more_than_we_can_is_refused() {
    for (name, value, keyword) in [
        ("PGREQUIREAUTH", "scram-sha-256", "require_auth"),
        ("PGREQUIREPEER", "postgres", "requirepeer"),
        ("PGSSLCRLDIR", "/etc/crls", "sslcrldir"),
        ("PGGSSENCMODE", "require", "gssencmode"),
    ] {
        assert_eq!(
            Scene::new(&[(name, value)]).trouble(),
            format!(
                "pg_staging cannot do what {keyword} asks for\nit is set to '{value}' by {name}\nunset it for pg_staging"
            )
        );
    }
    assert!(Scene::new(&[("PGGSSENCMODE", "prefer")]).look().is_ok());
}

#[test]
fn tls_is_as_sslmode_says_with_the_authorities_that_are_there() {
    let mut scene = Scene::new(&[]);
    let tls = |scene: &Scene| scene.look().unwrap().tls;
    assert_eq!(tls(&scene), Tls::default());
    scene.set("PGREQUIRESSL", "1");
    assert_eq!(tls(&scene).mode, Mode::Require);
    for (text, mode) in [
        ("disable", Mode::Disable),
        ("allow", Mode::Allow),
        ("prefer", Mode::Prefer),
        ("require", Mode::Require),
    ] {
        scene.set("PGSSLMODE", text);
        assert_eq!(tls(&scene), Tls { mode, ..Tls::default() });
    }
    scene.set("PGSSLMODE", "verify-full");
    assert!(scene.trouble().starts_with("there is no root certificate file ~/.postgresql/root.crt\n"));
    let root = scene.write(".postgresql/root.crt", 0o644, "");
    let expected =
        Tls { mode: Mode::VerifyFull, authorities: Some(Authorities::File(root.into())), ..Tls::default() };
    assert_eq!(tls(&scene), expected);
    scene.set("PGSSLROOTCERT", "/nonexistent");
    assert!(scene.trouble().starts_with("there is no root certificate file /nonexistent\n"));
    scene.set("PGSSLROOTCERT", "system");
    assert_eq!(tls(&scene).authorities, Some(Authorities::System));
    scene.set("PGSSLMODE", "");
    assert_eq!(tls(&scene).mode, Mode::VerifyFull);
    for weak in ["require", "verified"] {
        scene.set("PGSSLMODE", weak);
        assert!(scene.trouble().starts_with(&format!("sslmode cannot be '{weak}'\nit comes from PGSSLMODE")));
    }
}

#[test]
fn a_certificate_of_ours_needs_a_key_that_only_we_can_read() {
    let scene = Scene::new(&[]);
    let certificate = scene.write(".postgresql/postgresql.crt", 0o644, "");
    assert!(
        scene
            .trouble()
            .starts_with("there is a certificate ~/.postgresql/postgresql.crt, and no key for it\n")
    );
    let key = scene.write(".postgresql/postgresql.key", 0o644, "");
    assert!(scene.trouble().starts_with("~/.postgresql/postgresql.key can be read by others\n"));
    scene.write(".postgresql/postgresql.key", 0o600, "");
    assert_eq!(scene.look().unwrap().tls.ours, Some((certificate.into(), key.into())));
}

#[test]
fn a_password_is_not_in_what_is_shown_of_it() {
    let found = Scene::new(&[("PGPASSWORD", "hunter2")]).look().unwrap();
    assert!(!format!("{found:?}").contains("hunter2"));
}
