//! The SHA-256 sum of a file in a file of sums.

use super::{NoSum, decode, without_mark};

/// The sum of `name` in a file of sums, in any of the forms that `sha256sum`, `sha256sum --tag` and BSD's `sha256`
/// write, or a bare sum alone in the file. Names are compared without their folders.
///
/// # Errors
/// When no line has a sum for that name.
pub fn parse_sha256(text: &[u8], name: &str) -> Result<[u8; 32], NoSum> {
    let text = decode(without_mark(text));
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let alone = lines.clone().count() == 1;
    lines.find_map(|line| sum_line(line, name, alone)).ok_or_else(|| NoSum { name: name.to_owned() })
}

/// The sum in one line, if the line speaks of `name`; `alone` allows it to be without a name.
fn sum_line(line: &str, name: &str, alone: bool) -> Option<[u8; 32]> {
    let same = |told: &str| told.rsplit('/').next() == Some(name);
    if let Some(tagged) = line.strip_prefix("SHA256") {
        let (told, sum) = tagged.trim_start().strip_prefix('(')?.rsplit_once(')')?;
        let sum = sum.trim_start().strip_prefix('=')?.trim_start();
        return if same(told) { hex32(sum) } else { None };
    }
    match line.split_once(char::is_whitespace) {
        // After the sum comes a space and then a second one, or a star in binary mode.
        Some((sum, told)) => {
            let told = told.trim_start();
            if same(told) || told.strip_prefix('*').is_some_and(same) { hex32(sum) } else { None }
        }
        None if alone => hex32(line),
        None => None,
    }
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut sum = [0; 32];
    for (at, byte) in sum.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(sum)
}
