//! The XML of an object store: a bucket's objects, the page that goes on from there, or the store's refusal.

use percent_encoding::{percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use url::Url;

use super::gathered::{Gathered, SEGMENT};
use super::hints::{Hints, utc};
use super::{ListingError, decode_segment, without_password};

/// What S3 answers to ListObjectsV2, and to ListObjects, as do Google's store and others without `list-type`.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>,
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjects.html>
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Bucket {
    #[serde(default)]
    is_truncated: String,
    #[serde(default)]
    next_continuation_token: Option<String>,
    /// Only ListObjects echoes one, possibly empty.
    #[serde(default)]
    marker: Option<String>,
    /// Where ListObjects goes on, told only with a delimiter.
    #[serde(default)]
    next_marker: Option<String>,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    encoding_type: Option<String>,
    #[serde(default)]
    contents: Vec<Object>,
    #[serde(default)]
    common_prefixes: Vec<Folder>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Object {
    key: String,
    #[serde(default)]
    size: Option<String>,
    #[serde(default)]
    last_modified: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Folder {
    prefix: String,
}

/// The objects directly below the prefix's last slash. Gives the next page.
pub(super) fn read_bucket(text: &str, files: &mut Gathered<'_>) -> Result<Option<Url>, ListingError> {
    let page = files.page;
    let bucket: Bucket = quick_xml::de::from_str(text)
        .map_err(|source| ListingError::Xml { url: without_password(page), source })?;
    let prefix = bucket.plain(&bucket.prefix);
    let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
    let path = path_of(page, folder);
    for object in &bucket.contents {
        let key = bucket.plain(&object.key);
        let Some(name) = key.strip_prefix(folder) else {
            continue;
        };
        let name = if folder.is_empty() { Some(name) } else { name.strip_prefix('/') };
        let size = object.size.as_deref().and_then(|size| size.parse().ok());
        let modified = object.last_modified.as_deref().and_then(utc);
        if let Some(name) = name {
            files.add_named(&path, name, Hints { size, exact: true, modified });
        }
    }
    bucket.next(page)
}

/// The path of a folder in the bucket. Keys count from the bucket, whose URL is that of the page without its query;
/// where the query does not name the folder, the page's path may have done so.
fn path_of(page: &Url, folder: &str) -> String {
    let mut path = String::from(page.path().trim_end_matches('/'));
    let mut inside = String::new();
    for segment in folder.split('/').filter(|_| !folder.is_empty()) {
        inside.push('/');
        inside.extend(utf8_percent_encode(segment, SEGMENT));
    }
    let asked_for = page.query_pairs().any(|(key, _)| key == "prefix");
    let decoded = percent_decode_str(&path).decode_utf8_lossy();
    if asked_for || !decoded.ends_with(&format!("/{folder}")) {
        path.push_str(&inside);
    }
    path.push('/');
    path
}

impl Bucket {
    /// A key without the encoding that the store was asked to give it.
    fn plain(&self, key: &str) -> String {
        if self.encoding_type.as_deref() == Some("url") {
            decode_segment(&key.replace('+', " "))
        } else {
            key.to_owned()
        }
    }

    fn next(&self, page: &Url) -> Result<Option<Url>, ListingError> {
        if !self.is_truncated.trim().eq_ignore_ascii_case("true") {
            return Ok(None);
        }
        if let Some(token) = self.next_continuation_token.as_deref().filter(|token| !token.is_empty()) {
            return Ok(Some(continued(page, "continuation-token", token)));
        }
        let second = page.query_pairs().any(|(key, value)| key == "list-type" && value == "2");
        let marker = (!second || self.marker.is_some()).then(|| self.marker()).flatten();
        match marker {
            Some(marker) => Ok(Some(continued(page, "marker", &marker))),
            None => Err(ListingError::Incomplete { url: without_password(page) }),
        }
    }

    /// What ListObjects goes on behind: what it says, or the last thing that it listed.
    fn marker(&self) -> Option<String> {
        if let Some(marker) = self.next_marker.as_deref().filter(|marker| !marker.is_empty()) {
            return Some(self.plain(marker));
        }
        let keys = self.contents.iter().map(|object| &object.key);
        let folders = self.common_prefixes.iter().map(|folder| &folder.prefix);
        keys.chain(folders).map(|listed| self.plain(listed)).max()
    }
}

/// The page's URL with this parameter in place of the one of that name that it had.
fn continued(page: &Url, key: &str, value: &str) -> Url {
    let is_it = |pair: &str| pair.split_once('=').map_or(pair, |(name, _)| name) == key;
    let mut query: String = page
        .query()
        .unwrap_or("")
        .split('&')
        .filter(|pair| !pair.is_empty() && !is_it(pair))
        .flat_map(|pair| [pair, "&"])
        .collect();
    query.push_str(key);
    query.push('=');
    query.extend(utf8_percent_encode(value, SEGMENT));
    let mut next = page.clone();
    next.set_query(Some(&query));
    next
}

pub(super) fn refusal(text: &str, url: &Url) -> ListingError {
    let url = without_password(url);
    match quick_xml::de::from_str(text) {
        Ok(error) => ListingError::Storage { url, error },
        Err(source) => ListingError::Xml { url, source },
    }
}
