//! Whose line it is, where several sections are worked on at a time: each line begins with the section's name. Where
//! results are JSON, they say it themselves.

use std::borrow::Cow;
use std::sync::Arc;

use journal::event::{Envelope, Hash};
use journal::run::Run;
use journal::step::{Listener, Progress};

use super::Style;

tokio::task_local! {
    static LABEL: Label;
}

#[derive(Debug, Clone)]
struct Label {
    section: String,
    on_results: bool,
}

/// Does the work; whatever is told meanwhile bears the section's name.
pub async fn labelled<T>(section: &str, style: Style, work: impl Future<Output = T>) -> T {
    LABEL.scope(Label { section: section.to_owned(), on_results: !style.json }, work).await
}

/// A line with its label, if it has one.
pub(super) fn on(line: &str) -> Cow<'_, str> {
    put(line, |_| true)
}

/// The same for a line of results.
pub(super) fn on_result(line: &str) -> Cow<'_, str> {
    put(line, |label| label.on_results)
}

fn put(text: &str, wanted: impl Fn(&Label) -> bool) -> Cow<'_, str> {
    let labelled = LABEL.try_with(|label| {
        let line = |line: &str| format!("{}: {line}", label.section);
        wanted(label).then(|| text.split('\n').map(line).collect::<Vec<_>>().join("\n"))
    });
    labelled.ok().flatten().map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The listener with the label that holds here, wherever it is told something.
pub(super) fn listener(inner: Arc<dyn Listener>) -> Arc<dyn Listener> {
    match LABEL.try_with(Label::clone) {
        Ok(label) => Arc::new(Labelled { label, inner }),
        Err(_) => inner,
    }
}

struct Labelled {
    label: Label,
    inner: Arc<dyn Listener>,
}

impl Labelled {
    fn tell(&self, what: impl FnOnce(&dyn Listener)) {
        LABEL.sync_scope(self.label.clone(), || what(&*self.inner));
    }
}

impl Listener for Labelled {
    fn recorded(&self, run: &Run, envelope: &Envelope, hash: Hash) {
        self.tell(|inner| inner.recorded(run, envelope, hash));
    }

    fn progressed(&self, progress: &Progress) {
        self.tell(|inner| inner.progressed(progress));
    }

    fn warned(&self, warning: &str) {
        self.tell(|inner| inner.warned(warning));
    }
}
