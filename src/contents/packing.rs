//! How a file is compressed, as its name says.

use super::Found;

/// A compression that is undone on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// None.
    Plain,
    /// gzip.
    Gzip,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// What pg_dump puts behind the name of a file that it compresses (`compress_io.c`), and people behind that of a dump.
const ENDINGS: [(&str, Packing); 4] =
    [("", Packing::Plain), (".gz", Packing::Gzip), (".lz4", Packing::Lz4), (".zst", Packing::Zstd)];

impl Packing {
    /// The names that a file called `name` may have, with how it then is compressed.
    pub fn names(name: &str) -> [(String, Packing); 4] {
        ENDINGS.map(|(ending, packing)| (format!("{name}{ending}"), packing))
    }

    /// What a file's first bytes tell.
    #[must_use]
    pub fn of(found: Found) -> Option<Packing> {
        match found {
            Found::Gzip => Some(Packing::Gzip),
            Found::Lz4 => Some(Packing::Lz4),
            Found::Zstd => Some(Packing::Zstd),
            _ => None,
        }
    }
}
