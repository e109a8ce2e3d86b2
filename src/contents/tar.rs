//! Tar files, as far as a dump in one needs them: which files are in it, and where.
//!
//! Nothing of a tar file is ever put on a disk under a name that it chose. What could be meant to lead elsewhere (links,
//! devices, absolute names, `..`) is refused all the same, since no dump has it. The forms are those of POSIX
//! (pax Interchange Format) and of GNU tar, with their ways of telling names of more than 100 bytes and sizes of 8 GiB
//! and more.

/// What a tar file is made of, in bytes.
pub const TAR_BLOCK: usize = 512;

/// The most that a name, or what else is told of the file that follows, may take.
const LONGEST: u64 = 64 << 10;

/// What is wrong with a tar file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// What should be the header of a file is not.
    #[error("there is no header of a file at byte {at}")]
    NoHeader {
        /// Where.
        at: u64,
    },
    /// A name that leads out of the folder.
    #[error("it holds {name:?}, which leads elsewhere")]
    Elsewhere {
        /// The name.
        name: String,
    },
    /// Something that is neither a file nor a folder.
    #[error("it holds {name:?}, which is {what}")]
    NoFile {
        /// Its name.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// A name twice.
    #[error("it holds {name:?} twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// What is told of a file is longer than it may be.
    #[error("what it tells of a file at byte {at} takes {bytes} bytes")]
    TooLong {
        /// Where.
        at: u64,
        /// How long it is.
        bytes: u64,
    },
    /// The end comes too early.
    #[error("it ends after {length} bytes, within {name:?}")]
    Cut {
        /// How long the tar file is.
        length: u64,
        /// What is cut off.
        name: String,
    },
}

/// A file in a tar file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarMember {
    /// Its path, without `./` at its beginning.
    pub name: String,
    /// Where its first byte is.
    pub first: u64,
    /// How many there are.
    pub bytes: u64,
}

/// What comes next in a tar file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TarNext {
    /// So many bytes from here are to be given to [`TarWalk::told`].
    Told(u64),
    /// A file, if it is one, and where the header after it is.
    Header(Option<TarMember>, u64),
    /// The end.
    End,
}

/// A walk from header to header.
#[derive(Debug, Default)]
pub struct TarWalk {
    /// What was told of the file that follows.
    name: Option<String>,
    bytes: Option<u64>,
    telling: u8,
}

impl TarWalk {
    /// Reads the header at byte `at` of the tar file.
    ///
    /// # Errors
    /// As [`TarError`] has them.
    pub fn header(&mut self, block: &[u8; TAR_BLOCK], at: u64) -> Result<TarNext, TarError> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(TarNext::End);
        }
        let field = |from: usize, length: usize| block.get(from..from + length).unwrap_or_default();
        let no_header = || TarError::NoHeader { at };
        if number(field(148, 8)) != Some(sum_of(block)) {
            return Err(no_header());
        }
        let bytes = number(field(124, 12)).ok_or_else(no_header)?;
        let kind = field(156, 1).first().copied().unwrap_or_default();
        let data = at.saturating_add(TAR_BLOCK as u64);
        if matches!(kind, b'L' | b'K' | b'x' | b'g') {
            if bytes > LONGEST {
                return Err(TarError::TooLong { at, bytes });
            }
            self.telling = kind;
            return Ok(TarNext::Told(bytes));
        }
        let name = self.name.take().unwrap_or_else(|| {
            let (name, prefix) = (text(field(0, 100)), text(field(345, 155)));
            // GNU tar has other things where POSIX has the beginning of a long name.
            let is_posix = field(257, 6) == b"ustar\0";
            if is_posix && !prefix.is_empty() { format!("{prefix}/{name}") } else { name }
        });
        let bytes = self.bytes.take().unwrap_or(bytes);
        let what = match kind {
            0 | b'0' | b'7' => None,
            b'5' => {
                inside(&name)?;
                return Ok(TarNext::Header(None, data));
            }
            b'1' | b'2' => Some("a link"),
            b'3' | b'4' | b'6' => Some("a device"),
            b'S' => Some("a sparse file"),
            _ => Some("of a kind that is not known"),
        };
        if let Some(what) = what {
            return Err(TarError::NoFile { name, what });
        }
        let name = inside(&name)?;
        let next = data.saturating_add(bytes.div_ceil(TAR_BLOCK as u64).saturating_mul(TAR_BLOCK as u64));
        Ok(TarNext::Header(Some(TarMember { name, first: data, bytes }), next))
    }

    /// Takes what is told of the file that follows.
    ///
    /// # Errors
    /// When a record of it cannot be read.
    pub fn told(&mut self, told: &[u8], at: u64) -> Result<(), TarError> {
        match self.telling {
            b'L' => self.name = Some(text(told)),
            b'x' => {
                for (key, value) in records(told).ok_or(TarError::NoHeader { at })? {
                    match key.as_str() {
                        "path" => self.name = Some(value),
                        "size" => {
                            self.bytes = Some(value.parse().map_err(|_| TarError::NoHeader { at })?);
                        }
                        _ => {}
                    }
                }
            }
            // Where a link leads, and what holds for all files: nothing that matters here.
            _ => {}
        }
        Ok(())
    }
}

/// The records of a pax header: a length, a key and a value each.
fn records(told: &[u8]) -> Option<Vec<(String, String)>> {
    let mut records = Vec::new();
    let mut rest = told;
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ')?;
        let length: usize = str::from_utf8(rest.get(..space)?).ok()?.parse().ok()?;
        let record = rest.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        records.push((words(record.get(..equals)?), words(record.get(equals + 1..)?)));
        rest = rest.get(length..)?;
    }
    Some(records)
}

/// A name that stays in the folder, without `./` at its beginning and `/` at its end.
fn inside(name: &str) -> Result<String, TarError> {
    let elsewhere = || TarError::Elsewhere { name: name.to_owned() };
    if name.starts_with('/') || name.split('/').any(|part| part == "..") || name.contains('\0') {
        return Err(elsewhere());
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Ok(parts.join("/"))
}

/// A text that ends with its field, or at its first NUL.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(field.get(..end).unwrap_or_default()).into_owned()
}

/// A number in octal digits, or in base 256 when its first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if *first == 0x80 {
        let significant = rest.iter().skip_while(|byte| **byte == 0);
        return (significant.clone().count() <= 8)
            .then(|| significant.fold(0, |value, byte| (value << 8) | u64::from(*byte)));
    }
    let digits = text(field);
    let digits = digits.trim_matches(' ');
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

/// The sum of a header's bytes, those of the sum itself taken for spaces.
fn sum_of(block: &[u8; TAR_BLOCK]) -> u64 {
    let value = |(at, byte): (usize, &u8)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte });
    block.iter().enumerate().map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header; the sum is put in.
    fn header(name: &str, size: &str, kind: u8) -> [u8; TAR_BLOCK] {
        let mut block = [0; TAR_BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..124 + size.len()].copy_from_slice(size.as_bytes());
        block[156] = kind;
        block[257..263].copy_from_slice(b"ustar\0");
        let sum = format!("{:06o}\0 ", sum_of(&block));
        block[148..156].copy_from_slice(sum.as_bytes());
        block
    }

    fn first(name: &str, size: &str, kind: u8) -> Result<TarNext, TarError> {
        TarWalk::default().header(&header(name, size, kind), 1024)
    }

    fn member(name: &str, first: u64, bytes: u64, next: u64) -> TarNext {
        TarNext::Header(Some(TarMember { name: name.to_owned(), first, bytes }), next)
    }

    #[test]
    fn a_header_tells_where_its_file_is_and_where_the_next_header() {
        assert_eq!(first("./toc.dat", "00000001001\0", b'0'), Ok(member("toc.dat", 1536, 513, 2560)));
        assert_eq!(first("dump/1.dat.gz", "0", 0), Ok(member("dump/1.dat.gz", 1536, 0, 1536)));
        assert_eq!(first("dump/", "0", b'5'), Ok(TarNext::Header(None, 1536)));
        let mut far = header("1.dat", "", b'0');
        far[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
        let sum = format!("{:06o}\0 ", sum_of(&far));
        far[148..156].copy_from_slice(sum.as_bytes());
        assert_eq!(TarWalk::default().header(&far, 0), Ok(member("1.dat", 512, 1 << 34, 512 + (1 << 34))));
        assert_eq!(TarWalk::default().header(&[0; TAR_BLOCK], 0), Ok(TarNext::End));
    }

    #[test]
    fn what_is_told_before_a_file_counts_for_that_file_only() {
        let long = "dump/".to_owned() + &"a".repeat(200);
        let (length, size) = (long.len() + 10, "16 size=1000000\n");
        let pax = format!("{length} path={long}\n{size}");
        for (kind, told, bytes) in [(b'L', format!("{long}\0"), 8), (b'x', pax, 1_000_000)] {
            let mut walk = TarWalk::default();
            assert_eq!(walk.header(&header("told", "17", kind), 0), Ok(TarNext::Told(15)));
            walk.told(told.as_bytes(), 512).unwrap();
            let TarNext::Header(Some(found), _) = walk.header(&header("cut", "10", b'0'), 1024).unwrap()
            else {
                panic!("no file");
            };
            assert_eq!((found.name.as_str(), found.bytes), (long.as_str(), bytes));
            assert_eq!(walk.header(&header("next", "10", b'0'), 0), Ok(member("next", 512, 8, 1024)));
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for name in ["/etc/passwd", "../toc.dat", "dump/../../toc.dat", ".."] {
            let refused = Err(TarError::Elsewhere { name: name.to_owned() });
            assert_eq!(first(name, "0", b'0'), refused);
            assert_eq!(first(name, "0", b'5'), refused);
        }
        for (kind, what) in [(b'1', "a link"), (b'2', "a link"), (b'3', "a device"), (b'6', "a device")] {
            assert_eq!(first("x", "0", kind), Err(TarError::NoFile { name: "x".to_owned(), what }));
        }
        let mut damaged = header("1.dat", "0", b'0');
        damaged[3] = b'!';
        assert_eq!(TarWalk::default().header(&damaged, 512), Err(TarError::NoHeader { at: 512 }));
        let long = TarError::TooLong { at: 1024, bytes: 1 << 30 };
        assert_eq!(first("x", "10000000000", b'L'), Err(long));
    }
}
