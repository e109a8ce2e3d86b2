//! The list that `pg_restore -L` reads.
//!
//! `SortTocFromFile` in pg_backup_archiver.c cuts each line at its first `;`, skips what is blank then, and takes
//! the number in front; anything else makes it warn. Lines may be of any length. So everything behind the number
//! is for people, and a dropped entry is a line that starts with `;`.

use super::{Contents, Entry, Selection};

impl Selection {
    /// One line an entry, in the archive's order: kept ones as `pg_restore -l` prints them, the others behind a
    /// semicolon and with their reason.
    #[must_use]
    pub fn list(&self, contents: &Contents) -> String {
        let reasons = self.reasons();
        let mut list = String::new();
        for entry in contents.entries() {
            match reasons.get(&entry.dump_id) {
                None => list.push_str(&line(entry)),
                Some(reason) => {
                    let reason = one_line(&reason.to_string());
                    list.push_str(&format!(";{} ; dropped: {reason}", line(entry)));
                }
            }
            list.push('\n');
        }
        list
    }
}

/// An entry as `PrintTOCSummary` prints it.
fn line(entry: &Entry) -> String {
    format!(
        "{}; {} {} {} {} {} {}",
        entry.dump_id,
        entry.table_oid,
        entry.oid,
        one_line(entry.desc.as_str()),
        one_line(super::schema(entry).unwrap_or("-")),
        one_line(super::name(entry)),
        one_line(entry.owner.as_deref().unwrap_or_default()),
    )
}

/// Text without line breaks, which become blanks as in pg_dump's `sanitize_line`.
pub(super) fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
