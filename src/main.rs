//! The program: what was typed becomes a command, and how it ends becomes an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use pg_staging::cli::Cli;
use pg_staging::{command, console};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // Nobody is left to tell when even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    // One thread: programs that are started end with the thread that started them, so it must be the one that stays.
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(async {
                match cli.command {
                    Some(command) => command::run(cli.global, command).await,
                    None => console::run(cli.global).await,
                }
            });
            runtime.shutdown_background();
            ExitCode::from(code.0)
        }
        Err(error) => {
            pg_staging::report::text::error(&command::cannot_start(&error), false);
            ExitCode::FAILURE
        }
    }
}
