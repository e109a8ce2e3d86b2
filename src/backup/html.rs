//! The HTML pages of the usual servers: the links are the files, and what stands behind a link may tell its time and
//! size. IIS tells them before the link.

use std::convert::Infallible;

use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};
use html5gum::{Span, Tokenizer};
use url::Url;

use super::decode;
use super::gathered::Gathered;
use super::hints::{Hints, lead_hints, tail_hints, utc};

/// How much of the text after a link is searched for a date and a size, in bytes.
const MAX_TAIL: usize = 256;

/// Every `a[href]` of an HTML page; what follows it up to the next link may tell its time and size.
pub(super) fn read_html(text: &str, files: &mut Gathered<'_>) {
    let mut page = HtmlPage {
        files,
        element: Element::Other,
        attribute: Attribute::Other,
        href: None,
        row: None,
        lead: Some(String::new()),
    };
    let mut emitter: CallbackEmitter<_> = CallbackEmitter::new(|event: CallbackEvent<'_>, _: Span<()>| {
        page.see(&event);
        None::<Infallible>
    });
    // Scripts and style sheets are text, whatever tags they seem to contain.
    emitter.naively_switch_states(true);
    // The callback yields no tokens, so this only drives the tokenizer to the end.
    Tokenizer::new_with_emitter(text, emitter).for_each(drop);
    page.end_row();
}

enum Element {
    Link,
    Base,
    /// What ends a line of a list or a table.
    Break,
    Time,
    Other,
}

enum Attribute {
    Href,
    /// caddy's table cells carry what they are sorted by.
    DataOrder,
    Datetime,
    Other,
}

struct Row {
    name: String,
    url: Url,
    in_link: bool,
    tail: String,
    /// Whether its line has ended, so that what follows speaks of others.
    over: bool,
    hints: Hints,
}

struct HtmlPage<'a, 'b> {
    files: &'a mut Gathered<'b>,
    element: Element,
    attribute: Attribute,
    href: Option<String>,
    row: Option<Row>,
    /// What stands on the line so far, if no link does.
    lead: Option<String>,
}

impl HtmlPage<'_, '_> {
    fn see(&mut self, event: &CallbackEvent<'_>) {
        match event {
            CallbackEvent::OpenStartTag { name } => {
                self.element = match *name {
                    b"a" => Element::Link,
                    b"base" => Element::Base,
                    b"time" => Element::Time,
                    b"br" | b"hr" | b"li" | b"tr" => Element::Break,
                    _ => Element::Other,
                };
                self.href = None;
            }
            CallbackEvent::AttributeName { name } => {
                self.attribute = match (*name, &self.element) {
                    (b"href", Element::Link | Element::Base) => Attribute::Href,
                    (b"data-order", _) => Attribute::DataOrder,
                    (b"datetime", Element::Time) => Attribute::Datetime,
                    _ => Attribute::Other,
                };
            }
            CallbackEvent::AttributeValue { value } => self.value(&decode(value)),
            CallbackEvent::CloseStartTag { .. } => self.begin(),
            CallbackEvent::EndTag { name: b"a" } => {
                self.lead = None;
                if let Some(row) = &mut self.row {
                    row.in_link = false;
                }
            }
            CallbackEvent::String { value } => self.text(&decode(value)),
            CallbackEvent::EndTag { .. }
            | CallbackEvent::Comment { .. }
            | CallbackEvent::Doctype { .. }
            | CallbackEvent::Error(_) => {}
        }
    }

    fn value(&mut self, value: &str) {
        match (&self.attribute, &mut self.row) {
            (Attribute::Href, _) => self.href = self.href.take().or_else(|| Some(value.to_owned())),
            (Attribute::DataOrder, Some(row)) => {
                row.hints.size = row.hints.size.or(value.parse().ok());
            }
            (Attribute::Datetime, Some(row)) => row.hints.modified = row.hints.modified.or(utc(value)),
            _ => {}
        }
    }

    fn begin(&mut self) {
        match self.element {
            Element::Base => self.href.take().iter().for_each(|href| self.files.set_base(href)),
            Element::Link => self.begin_row(),
            Element::Break => {
                self.lead = Some(String::new());
                if let Some(row) = self.row.as_mut() {
                    row.over = true;
                }
            }
            Element::Time | Element::Other => {}
        }
    }

    fn begin_row(&mut self) {
        let Some(href) = self.href.take() else { return };
        self.end_row();
        let hints = self.lead.take().and_then(|lead| lead_hints(&lead)).unwrap_or_default();
        self.files.add_folder_behind(&href);
        self.row = self.files.file_behind(&href).map(|(name, url)| Row {
            name,
            url,
            in_link: true,
            tail: String::new(),
            over: false,
            hints,
        });
    }

    /// A link's own text is no source for anything: Apache and nginx cut long names short.
    fn text(&mut self, text: &str) {
        let listens = |row: &&mut Row| !row.in_link && !row.over && row.tail.len() < MAX_TAIL;
        if let Some(row) = self.row.as_mut().filter(listens) {
            row.tail.extend(text.chars().take(MAX_TAIL));
            row.tail.push(' ');
        }
        if let Some((_, last)) = text.rsplit_once('\n') {
            self.lead = Some(last.chars().take(MAX_TAIL).collect());
        } else if let Some(lead) = self.lead.as_mut().filter(|lead| lead.len() < MAX_TAIL) {
            lead.extend(text.chars().take(MAX_TAIL));
        }
    }

    fn end_row(&mut self) {
        if let Some(row) = self.row.take() {
            let told = tail_hints(&row.tail);
            let hints = Hints {
                modified: row.hints.modified.or(told.modified),
                ..if row.hints.size.is_some() { row.hints } else { told }
            };
            self.files.add(row.name, row.url, hints);
        }
    }
}
