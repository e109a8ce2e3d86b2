//! What outlives a command: the options that all were started with, the configuration that is the current one, and the
//! signals. A command line is a session of one command.

use std::cell::OnceCell;
use std::path::Path;
use std::process::ExitStatus;
use std::rc::Rc;

use super::place::expand_home;
use super::signals::Signals;
use super::{App, dispatch, stopped};
use crate::cli::{Command, Global};
use crate::config::{self, Config, ConfigError};
use crate::error::{Error, ExitCode};
use crate::report::{self, Style};
use crate::world::process::Program;
use crate::world::{disk, machine};

/// What outlives a command.
pub struct Session {
    global: Global,
    config: Option<Config>,
    signals: Rc<OnceCell<Signals>>,
    script: bool,
}

impl Session {
    /// A session that begins with these options, and without a configuration.
    pub fn new(global: Global) -> Session {
        Session { global, config: None, signals: Rc::default(), script: false }
    }

    /// The same, with its commands on standard input, which is then for nobody else.
    pub fn of_script(global: Global) -> Session {
        Session { script: true, ..Session::new(global) }
    }

    /// How things are shown where a line says nothing else.
    pub fn style(&self) -> Style {
        Style::new(&self.global)
    }

    /// Tells an error, and gives its exit code.
    pub fn tell(&self, error: &Error) -> ExitCode {
        report::error(error, self.style());
        error.code
    }

    /// Reads the configuration that the command line or the environment names, or that is in one of the usual places.
    pub fn read_first_config(&mut self) -> Result<(), Error> {
        let path = self.global.config.clone().unwrap_or_else(machine::default_config);
        let wanted = self.global.config.is_some() || machine::variable("PG_STAGING_CONFIG").is_some();
        if wanted || disk::exists(&path) {
            self.config = Some(read_config(&path, self.style())?);
        }
        Ok(())
    }

    /// From here on a signal ends the command at work, and not the program; with `hangups`, SIGHUP is as SIGTERM.
    pub fn listen(&self, hangups: bool) -> Result<(), Error> {
        if self.signals.get().is_none() {
            let signals = Signals::listen(self.style(), hangups)?;
            self.signals.get_or_init(|| signals);
        }
        Ok(())
    }

    /// The signal that asked the command before to stop, if one did.
    pub fn asked_to_stop(&self) -> Option<u8> {
        self.signals.get()?.asked()
    }

    /// The signal that asked the program to end, if one did.
    pub fn asked_to_end(&self) -> Option<u8> {
        self.signals.get()?.ending()
    }

    /// Waits until the program is asked to end.
    pub async fn ended(&self) -> u8 {
        match self.signals.get() {
            Some(signals) => signals.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Waits until a signal asks to stop.
    pub async fn stopped(&self) -> u8 {
        match self.signals.get() {
            Some(signals) => signals.stopped().await,
            None => std::future::pending().await,
        }
    }

    /// Forgets what the command before was asked, unless the program is to end.
    pub fn forget_stop(&self) {
        if let Some(signals) = self.signals.get() {
            signals.forget();
        }
    }

    /// Runs one command with these options of its own, tells what has to be told, and says how it ended.
    pub async fn run(&self, typed: Global, command: Command) -> ExitCode {
        let global = typed.over(&self.global);
        let style = Style::new(&global);
        let _log = report::log(style);
        if let Some(signals) = self.signals.get() {
            signals.begin();
        }
        let outcome = match self.app(global) {
            Ok(app) => tokio::select! {
                biased;
                outcome = dispatch(&app, command) => outcome,
                signal = self.unheeded() => Err(stopped(signal)),
            },
            Err(error) => Err(error),
        };
        outcome.unwrap_or_else(|error| {
            report::error(&error, style);
            error.code
        })
    }

    /// Waits for a signal about which the command at work does nothing.
    async fn unheeded(&self) -> u8 {
        match self.signals.get() {
            Some(signals) => signals.unheeded().await,
            None => std::future::pending().await,
        }
    }

    /// What a command shares with others, under these options.
    pub fn app(&self, global: Global) -> Result<App, Error> {
        let style = Style::new(&global);
        let config = match (&global.config, &self.config) {
            (Some(path), current) if global.config != self.global.config || current.is_none() => {
                Some(read_config(path, style)?)
            }
            (_, current) => current.clone(),
        };
        Ok(App { global, style, config, signals: Rc::clone(&self.signals), script: self.script })
    }

    /// What a command without options of its own shares with others.
    pub fn plain_app(&self) -> Result<App, Error> {
        self.app(self.global.clone())
    }

    /// Leaves the terminal to another program until it ends.
    pub async fn hand_over(&self, program: &Program) -> Result<ExitStatus, Error> {
        let (global, style, signals) = (self.global.clone(), self.style(), Rc::clone(&self.signals));
        let (status, _) =
            App { global, style, config: None, signals, script: self.script }.hand_over(program).await?;
        Ok(status)
    }

    /// Reads another file as the current configuration; when that fails, the one before stays.
    pub fn read(&mut self, filename: &str) -> Result<(), Error> {
        let path = expand_home(filename)?;
        self.config = Some(read_config(&path, self.style())?);
        self.global.config = Some(path);
        Ok(())
    }

    /// Sets an option for as long as the session lasts. A value that the option cannot take is refused.
    pub fn set(&mut self, section: &str, option: &str, value: &str) -> Result<(), Error> {
        let Some(config) = &self.config else {
            return Err(Error::new(ExitCode::USAGE, "there is no configuration whose options could be set")
                .hint("read one first: config <filename>"));
        };
        let mut config = config.clone();
        config.set(section, option, value)?;
        check(&config, section, option)?;
        if config::option(&option.to_lowercase()).is_none() {
            let warning =
                format!("{option} is not an option of pg_staging; a %({option})s in another one uses it");
            self.style().warn(&warning);
        }
        self.config = Some(config);
        Ok(())
    }

    /// Turns it round whether every event is told, and says how it is then.
    pub fn toggle_verbose(&mut self) -> bool {
        self.global.verbose = !self.global.verbose;
        self.global.quiet = false;
        self.global.verbose
    }
}

/// Whether the option can take what was set.
fn check(config: &Config, section: &str, option: &str) -> Result<(), ConfigError> {
    match config.target(section, machine::home().as_deref()) {
        Err(ConfigError::InvalidValue { place, value, problem, hint })
            if place.option == option.to_lowercase() =>
        {
            Err(ConfigError::InvalidValue { place, value, problem, hint })
        }
        // What else is wrong with the section is told by who uses it.
        _ => Ok(()),
    }
}

fn read_config(path: &Path, style: Style) -> Result<Config, Error> {
    let bytes = disk::read(path).map_err(|trouble| Error {
        code: ExitCode::USAGE,
        ..Error::from(trouble.hint("name the configuration file with -c FILE or PG_STAGING_CONFIG"))
    })?;
    let config = Config::parse(path, &bytes)?;
    for warning in config.warnings() {
        style.warn(&warning.to_string());
    }
    Ok(config)
}
