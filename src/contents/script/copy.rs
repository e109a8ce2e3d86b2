//! Rows behind `COPY … FROM stdin`: up to a line that is `\.` and nothing more.

/// How much of the last line came that may be the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Copied {
    seen: Seen,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Seen {
    /// Nothing of the line.
    #[default]
    Start,
    Backslash,
    Dot,
    /// The `\r` of a line that ends in two characters.
    Return,
    /// It is a row.
    Row,
}

impl Copied {
    /// Takes rows: how many of the bytes are theirs, how many lines that were, and whether the end came.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, u64, bool) {
        let mut lines = 0;
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.seen == Seen::Row {
                let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                    return (bytes.len(), lines, false);
                };
                at += end + 1;
                lines += 1;
                self.seen = Seen::Start;
                continue;
            }
            let byte = rest.first().copied().unwrap_or_default();
            at += 1;
            let ends = matches!(self.seen, Seen::Dot | Seen::Return);
            self.seen = match (self.seen, byte) {
                (_, b'\n') => {
                    lines += 1;
                    if ends {
                        return (at, lines, true);
                    }
                    Seen::Start
                }
                (Seen::Start, b'\\') => Seen::Backslash,
                (Seen::Backslash, b'.') => Seen::Dot,
                (Seen::Dot, b'\r') => Seen::Return,
                _ => Seen::Row,
            };
        }
        (bytes.len(), lines, false)
    }
}
