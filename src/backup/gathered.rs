//! The files of a page while it is being read: which links and names are files of its folder, and their URLs.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use super::hints::Hints;
use super::{ListedFile, ListingError, decode_segment, is_file_name, sort_and_dedup, without_password};

/// The bytes of a file's name that are written with a percent sign in a URL: all but RFC 3986's unreserved ones.
/// Some object stores read a bare `+` as a space, so it is among them.
pub(super) const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The files of a page while it is being read.
pub(super) struct Gathered<'a> {
    pub(super) page: &'a Url,
    /// What links are resolved against: the page, or what it says itself.
    base: Url,
    has_base: bool,
    files: Vec<ListedFile>,
    folders: BTreeMap<String, Url>,
    limit: usize,
    pub(super) too_many: bool,
}

impl<'a> Gathered<'a> {
    pub(super) fn new(page: &'a Url, limit: usize) -> Self {
        Self {
            page,
            base: page.clone(),
            has_base: false,
            files: Vec::new(),
            folders: BTreeMap::new(),
            limit,
            too_many: false,
        }
    }

    /// Takes another base for links, as the page's first `<base href>` says. It may be on another server, but not one
    /// that is asked without TLS when this one is asked with it.
    pub(super) fn set_base(&mut self, href: &str) {
        if self.has_base {
            return;
        }
        self.has_base = true;
        let base = self.page.join(href).ok();
        let safe = |base: &Url| base.scheme() == "https" || base.scheme() == self.page.scheme();
        if let Some(base) = base.filter(|base| base.has_host() && safe(base)) {
            self.base = base;
        }
    }

    /// The path up to and with its last slash.
    fn folder(&self) -> &str {
        let path = self.base.path();
        path.rfind('/').and_then(|slash| path.get(..=slash)).unwrap_or("/")
    }

    /// A link as it stands in the page, when it leads to a file of this folder.
    pub(super) fn file_behind(&self, href: &str) -> Option<(String, Url)> {
        let link = self.base.join(href).ok()?;
        self.behind(&link, link.path())
    }

    /// Takes the folder in this folder that a link leads to, if it does.
    pub(super) fn add_folder_behind(&mut self, href: &str) {
        let Ok(link) = self.base.join(href) else { return };
        let Some(path) = link.path().strip_suffix('/') else { return };
        if let Some((name, url)) = self.behind(&link, path) {
            self.add_folder(name, url);
        }
    }

    /// What lies at `path`, which is a link's, right in this folder.
    fn behind(&self, link: &Url, path: &str) -> Option<(String, Url)> {
        if link.origin() != self.base.origin() {
            return None;
        }
        let (folder, segment) = path.rsplit_once('/')?;
        let is_here = self.folder().strip_suffix('/').is_some_and(|here| {
            folder == here || (here.contains('%') && percent_decode_str(folder).eq(percent_decode_str(here)))
        });
        let name = decode_segment(segment);
        if !is_here || !is_file_name(&name) {
            return None;
        }
        // The page's own user and password are for its own server.
        let mut url = if link.origin() == self.page.origin() { self.page.clone() } else { self.base.clone() };
        url.set_path(path);
        url.set_query(link.query());
        url.set_fragment(None);
        Some((name, url))
    }

    /// The folder of this name in the page's folder.
    pub(super) fn add_folder_here(&mut self, name: &str) {
        let name = name.strip_suffix('/').unwrap_or(name);
        if is_file_name(name) {
            let url = self.named(self.folder(), name);
            self.add_folder(name.to_owned(), url);
        }
    }

    /// The URL is that without a slash at its end.
    fn add_folder(&mut self, name: String, mut url: Url) {
        if self.folders.len() >= self.limit {
            self.too_many = true;
            return;
        }
        url.set_path(&format!("{}/", url.path()));
        self.folders.insert(name, url);
    }

    /// The file of this name in the page's folder.
    pub(super) fn add_here(&mut self, name: &str, hints: Hints) {
        let folder = self.folder().to_owned();
        self.add_named(&folder, name, hints);
    }

    /// The file of this name in the folder that `path` is, whose segments are already encoded.
    pub(super) fn add_named(&mut self, path: &str, name: &str, hints: Hints) {
        if !is_file_name(name) {
            return;
        }
        let url = self.named(path, name);
        self.add(name.to_owned(), url, hints);
    }

    fn named(&self, path: &str, name: &str) -> Url {
        let mut url = self.page.clone();
        url.set_path(&format!("{path}{}", utf8_percent_encode(name, SEGMENT)));
        url.set_query(None);
        url.set_fragment(None);
        url
    }

    pub(super) fn add(&mut self, name: String, url: Url, hints: Hints) {
        if self.files.len() >= self.limit {
            self.too_many = true;
            return;
        }
        self.files.push(ListedFile {
            name,
            url,
            size_hint: hints.size,
            exact: hints.size.is_some() && hints.exact,
            modified: hints.modified,
        });
    }

    pub(super) fn finish(mut self) -> Result<(Vec<ListedFile>, BTreeMap<String, Url>), ListingError> {
        if self.too_many {
            return Err(ListingError::TooMany { url: without_password(self.page), limit: self.limit });
        }
        sort_and_dedup(&mut self.files);
        Ok((self.files, self.folders))
    }
}
