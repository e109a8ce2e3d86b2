//! The same for several sections, some at a time. Each makes a run of its own; one that fails keeps no other from its work.

use std::rc::Rc;

use futures_util::StreamExt as _;
use futures_util::stream;
use journal::step::Stop;

use super::App;
use crate::error::{Error, ExitCode};
use crate::report::{self, Style};

/// Does it for each section, `jobs` at a time, in their order. The exit code is the worst of theirs.
pub(super) async fn run(
    app: &App,
    sections: &[String],
    jobs: usize,
    work: impl AsyncFn(&App, &str) -> Result<ExitCode, Error>,
) -> Result<ExitCode, Error> {
    let app = &app.without_bars();
    let stop = app.stop()?;
    let one = |section: &'_ String| {
        let (section, stop, work) = (section.clone(), stop.clone(), &work);
        async move {
            if let Stop::Soon(signal) | Stop::Now(signal) = *stop.borrow() {
                return (section, ExitCode(128 + signal));
            }
            let work = async { work(app, &section).await.unwrap_or_else(|error| told(&error, app.style)) };
            let code = report::labelled(&section, app.style, work).await;
            (section, code)
        }
    };
    let mut ended: Vec<(String, ExitCode)> =
        stream::iter(sections.iter().map(one)).buffer_unordered(jobs).collect().await;
    ended.sort_by_key(|(section, _)| sections.iter().position(|asked| asked == section));
    report::each(&ended, app.style);
    Ok(ended.into_iter().fold(ExitCode::DONE, |worst, (_, code)| worst.worse(code)))
}

fn told(error: &Error, style: Style) -> ExitCode {
    report::error(error, style);
    error.code
}

impl App {
    /// The same, with lines in place of bars, which only one run can draw.
    fn without_bars(&self) -> App {
        App {
            global: self.global.clone(),
            style: Style { bars: false, ..self.style },
            config: self.config.clone(),
            signals: Rc::clone(&self.signals),
            script: self.script,
        }
    }
}
