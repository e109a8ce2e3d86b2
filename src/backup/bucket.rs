//! The XML of an object store: a bucket's objects, the page that goes on from there, or the store's refusal.

use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use url::Url;

use super::gathered::{Gathered, SEGMENT};
use super::hints::{Hints, utc};
use super::{ListingError, decode_segment, without_password};

/// What S3's ListObjectsV2 answers.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Bucket {
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_continuation_token: Option<String>,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    encoding_type: Option<String>,
    #[serde(default)]
    contents: Vec<Object>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Object {
    key: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    last_modified: Option<String>,
}

/// The objects directly below the prefix's last slash. Keys count from the bucket, and the bucket's URL is that of
/// the page without its query. Gives the next page.
pub(super) fn read_bucket(text: &str, files: &mut Gathered<'_>) -> Result<Option<Url>, ListingError> {
    let page = files.page;
    let bucket: Bucket = quick_xml::de::from_str(text)
        .map_err(|source| ListingError::Xml { url: without_password(page), source })?;
    let encoded = bucket.encoding_type.as_deref() == Some("url");
    let plain = |key: &str| {
        if encoded { decode_segment(&key.replace('+', " ")) } else { key.to_owned() }
    };

    let prefix = plain(&bucket.prefix);
    let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut path = String::from(page.path().trim_end_matches('/'));
    for segment in folder.split('/').filter(|_| !folder.is_empty()) {
        path.push('/');
        path.extend(utf8_percent_encode(segment, SEGMENT));
    }
    path.push('/');
    for object in &bucket.contents {
        let key = plain(&object.key);
        let Some(name) = key.strip_prefix(folder) else {
            continue;
        };
        let name = if folder.is_empty() { Some(name) } else { name.strip_prefix('/') };
        let modified = object.last_modified.as_deref().and_then(utc);
        if let Some(name) = name {
            files.add_named(&path, name, Hints { size: object.size, exact: true, modified });
        }
    }
    match (bucket.is_truncated, bucket.next_continuation_token) {
        (false, _) => Ok(None),
        (true, Some(token)) => Ok(Some(continued(page, &token))),
        (true, None) => Err(ListingError::Incomplete { url: without_password(page) }),
    }
}

/// The page's URL with this continuation token in place of the one it had.
fn continued(page: &Url, token: &str) -> Url {
    const KEY: &str = "continuation-token=";
    let mut query: String = page
        .query()
        .unwrap_or("")
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with(KEY))
        .flat_map(|pair| [pair, "&"])
        .collect();
    query.push_str(KEY);
    query.extend(utf8_percent_encode(token, SEGMENT));
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
