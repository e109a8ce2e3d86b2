//! nginx's `autoindex_format xml`.

use serde::Deserialize;

use super::gathered::Gathered;
use super::hints::{Hints, utc};
use super::{ListingError, without_password};

#[derive(Deserialize)]
struct List {
    #[serde(default, rename = "file")]
    files: Vec<File>,
    #[serde(default, rename = "directory")]
    folders: Vec<Folder>,
}

#[derive(Deserialize)]
struct Folder {
    #[serde(rename = "$text")]
    name: String,
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "$text")]
    name: String,
    #[serde(default, rename = "@size")]
    size: Option<String>,
    #[serde(default, rename = "@mtime")]
    modified: Option<String>,
}

/// The `file` and `directory` elements; what is neither has another name.
pub(super) fn read_xml_list(text: &str, files: &mut Gathered<'_>) -> Result<(), ListingError> {
    let list: List = quick_xml::de::from_str(text)
        .map_err(|source| ListingError::Xml { url: without_password(files.page), source })?;
    list.folders.iter().for_each(|folder| files.add_folder_here(&folder.name));
    for file in list.files {
        let size = file.size.and_then(|size| size.parse().ok());
        let modified = file.modified.as_deref().and_then(utc);
        files.add_here(&file.name, Hints { size, exact: true, modified });
    }
    Ok(())
}
