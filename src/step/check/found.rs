//! Asks the copy for things by their names, in the bytes that the dump has them in.

use crate::step::catalog::Expected;
use crate::world::Trouble;
use crate::world::postgres::{Session, literal};

/// A schema, and what is in it.
pub(super) type Named = (String, String);

/// Rows of (a number, schema, name); the last two are NULL when none is to be named. Names come in the dump's encoding,
/// byte by byte, so that they compare with those in the dump whatever encoding that and the copy have.
pub(super) async fn found(
    session: &Session,
    sql: &str,
    expected: &Expected,
) -> Result<Vec<(u64, Option<Named>)>, Trouble> {
    let encoding = literal(expected.encoding.as_deref().unwrap_or("UTF8"));
    let encoding =
        format!("CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE {encoding} END");
    let bytes = |name: &str| format!("encode(convert_to({name}, {encoding}), 'hex')");
    let sql = format!(
        "SELECT number, {}, {} FROM (\n{sql}\n) AS found (number, schema, name)",
        bytes("schema"),
        bytes("name")
    );
    let text = |hex: String| text_of(&hex, expected.byte_by_byte);
    let read = |row: Vec<Option<String>>| {
        let mut fields = row.into_iter();
        let number = fields.next().flatten().and_then(|number| number.parse().ok()).unwrap_or_default();
        let (schema, name) = (fields.next().flatten().map(text), fields.next().flatten().map(text));
        (number, schema.zip(name))
    };
    Ok(session.rows(&sql).await?.into_iter().map(read).collect())
}

/// A name as it was read in the dump: as UTF-8, or byte by byte, as ISO 8859-1.
fn text_of(hex: &str, byte_by_byte: bool) -> String {
    let digits = hex.chars().filter_map(|digit| u8::try_from(digit.to_digit(16)?).ok());
    let digits: Vec<u8> = digits.collect();
    let bytes: Vec<u8> =
        digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    if byte_by_byte {
        bytes.into_iter().map(char::from).collect()
    } else {
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
