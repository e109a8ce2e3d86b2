//! The HTML pages of the usual servers: the links are the files, and what follows a link may tell its time and size.

use std::convert::Infallible;

use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};
use html5gum::{Span, Tokenizer};
use url::Url;

use super::decode;
use super::gathered::Gathered;
use super::hints::{Hints, tail_hints, utc};

/// How much of the text after a link is searched for a date and a size, in bytes.
const MAX_TAIL: usize = 256;

/// Every `a[href]` of an HTML page; what follows it up to the next link may tell its time and size.
pub(super) fn read_html(text: &str, files: &mut Gathered<'_>) {
    let mut page =
        HtmlPage { files, element: Element::Other, attribute: Attribute::Other, href: None, row: None };
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
    hints: Hints,
}

struct HtmlPage<'a, 'b> {
    files: &'a mut Gathered<'b>,
    element: Element,
    attribute: Attribute,
    href: Option<String>,
    row: Option<Row>,
}

impl HtmlPage<'_, '_> {
    fn see(&mut self, event: &CallbackEvent<'_>) {
        match event {
            CallbackEvent::OpenStartTag { name } => {
                self.element = match *name {
                    b"a" => Element::Link,
                    b"time" => Element::Time,
                    _ => Element::Other,
                };
                self.href = None;
            }
            CallbackEvent::AttributeName { name } => {
                self.attribute = match (*name, &self.element) {
                    (b"href", Element::Link) => Attribute::Href,
                    (b"data-order", _) => Attribute::DataOrder,
                    (b"datetime", Element::Time) => Attribute::Datetime,
                    _ => Attribute::Other,
                };
            }
            CallbackEvent::AttributeValue { value } => self.value(&decode(value)),
            CallbackEvent::CloseStartTag { .. } => self.begin_row(),
            CallbackEvent::EndTag { name: b"a" } => {
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
                row.hints.exact = true;
            }
            (Attribute::Datetime, Some(row)) => row.hints.modified = row.hints.modified.or(utc(value)),
            _ => {}
        }
    }

    fn begin_row(&mut self) {
        let Some(href) = self.href.take() else { return };
        self.end_row();
        self.row = self.files.file_behind(&href).map(|(name, url)| Row {
            name,
            url,
            in_link: true,
            tail: String::new(),
            hints: Hints::default(),
        });
    }

    /// A link's own text is no source for anything: Apache and nginx cut long names short.
    fn text(&mut self, text: &str) {
        if let Some(row) = self.row.as_mut().filter(|row| !row.in_link && row.tail.len() < MAX_TAIL) {
            row.tail.extend(text.chars().take(MAX_TAIL));
            row.tail.push(' ');
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
