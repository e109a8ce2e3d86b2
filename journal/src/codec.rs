//! An envelope as bytes.
//!
//! The envelope is laid out by hand, all integers big-endian, so that its header can be read whatever becomes of the
//! payload's encoding:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | magic `PGSJ` |
//! | 1 | envelope version, 1 |
//! | 1 | codec of the payload, 1 = bincode 1.3, fixed-size integers, little-endian |
//! | 2 | flags; bit 0: a reader that does not know this type may pass over it |
//! | 2, 2 | type id and type version, see [`payload`] |
//! | 16 | run id |
//! | 8 | number within the run |
//! | 16 | event id |
//! | 8 | time, microseconds since 1970-01-01 UTC, signed |
//! | 8 | fencing epoch |
//! | 2 + n, 2 + n, 4 | actor: user, host, process id |
//! | 32 | blake3 of the encoded event before it in the run, zeros for the first |
//! | 4 + n | payload |
//! | 4 | crc32c of all that comes before |
//!
//! A payload is one struct for each type and version, frozen once released: a change is a new version, read back by
//! a conversion. Stored bytes never change.

pub mod payload;

use jiff::Timestamp;
use uuid::Uuid;

use crate::event::{Actor, Envelope, Hash, RunId};

/// An encoded event, envelope and all, is never longer than this. What is larger belongs into an attachment.
pub const MAX_EVENT: usize = 8 * 1024;

const MAGIC: [u8; 4] = *b"PGSJ";
const ENVELOPE_VERSION: u8 = 1;
const BINCODE_FIXINT: u8 = 1;
const SKIPPABLE: u16 = 1;

/// Why bytes are not an event that this version can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes are not what was written.
    #[error("event is damaged: {0}")]
    Damaged(String),
    /// The bytes are whole, but say something that this version does not know.
    #[error("event was written by a newer version: {0}")]
    Newer(String),
    /// The event is too large to be stored.
    #[error("event '{kind}' takes {size} bytes, more than the {MAX_EVENT} an event may have")]
    TooLarge {
        /// The event's kind.
        kind: &'static str,
        /// Its encoded size.
        size: usize,
    },
}

/// The part of an encoded event that any version can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Type id in the registry.
    pub type_id: u16,
    /// Version of that type.
    pub type_version: u16,
    /// Whether a reader that does not know the type may pass over it.
    pub skippable: bool,
    /// Which run.
    pub run: RunId,
    /// Number within the run.
    pub n: u64,
    /// The event's own id.
    pub id: Uuid,
    /// When it was recorded.
    pub at: Timestamp,
    /// Fencing epoch.
    pub epoch: u64,
    /// Who recorded it.
    pub actor: Actor,
    /// Hash of the encoded event before it.
    pub prev: Hash,
}

/// `envelope` as bytes.
pub fn encode(envelope: &Envelope) -> Result<Vec<u8>, CodecError> {
    let payload = payload::encode(&envelope.event)?;
    let mut out = Vec::with_capacity(160 + payload.bytes.len());
    out.extend_from_slice(&MAGIC);
    out.push(ENVELOPE_VERSION);
    out.push(BINCODE_FIXINT);
    out.extend_from_slice(&(if payload.skippable { SKIPPABLE } else { 0 }).to_be_bytes());
    out.extend_from_slice(&payload.type_id.to_be_bytes());
    out.extend_from_slice(&payload.type_version.to_be_bytes());
    out.extend_from_slice(envelope.run.0.as_bytes());
    out.extend_from_slice(&envelope.n.to_be_bytes());
    out.extend_from_slice(envelope.id.as_bytes());
    out.extend_from_slice(&envelope.at.as_microsecond().to_be_bytes());
    out.extend_from_slice(&envelope.epoch.to_be_bytes());
    put_name(&mut out, &envelope.actor.user);
    put_name(&mut out, &envelope.actor.host);
    out.extend_from_slice(&envelope.actor.pid.to_be_bytes());
    out.extend_from_slice(&envelope.prev.0);
    let length = u32::try_from(payload.bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&payload.bytes);
    out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
    if out.len() > MAX_EVENT {
        return Err(CodecError::TooLarge { kind: envelope.event.kind(), size: out.len() });
    }
    Ok(out)
}

/// The event in `bytes`, which must hold it and nothing else.
pub fn decode(bytes: &[u8]) -> Result<Envelope, CodecError> {
    let (header, payload) = split(bytes)?;
    let event = payload::decode(&header, payload)?;
    let Header { run, n, id, at, epoch, actor, prev, .. } = header;
    Ok(Envelope { run, n, id, at, epoch, actor, prev, event })
}

/// What can be read of the event in `bytes` even when a newer version wrote it.
pub fn header(bytes: &[u8]) -> Result<Header, CodecError> {
    split(bytes).map(|(header, _)| header)
}

/// The hashes that an encoded event has as texts in it: whatever has the form of one. The journal does not look into
/// what steps store, so those that attachments are stored under are what the event names.
pub fn named_in(bytes: &[u8]) -> Vec<Hash> {
    let words = bytes.split(|byte| !byte.is_ascii_hexdigit()).filter(|word| word.len() == 64);
    words.filter_map(|word| str::from_utf8(word).ok()?.parse().ok()).collect()
}

/// Names are cut at 255 bytes, on a character's border.
fn put_name(out: &mut Vec<u8>, name: &str) {
    let mut end = name.len().min(255);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let cut = name.get(..end).unwrap_or_default().as_bytes();
    out.extend_from_slice(&u16::try_from(cut.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(cut);
}

fn split(bytes: &[u8]) -> Result<(Header, &[u8]), CodecError> {
    let Some((checked, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(CodecError::Damaged(format!("{} bytes are too few", bytes.len())));
    };
    let mut reader = Reader { rest: checked };
    if reader.array::<4>()? != MAGIC {
        return Err(CodecError::Damaged("it does not begin with PGSJ".to_owned()));
    }
    if crc32c::crc32c(checked) != u32::from_be_bytes(*crc) {
        return Err(CodecError::Damaged("its checksum does not match".to_owned()));
    }
    let [envelope_version, codec] = reader.array::<2>()?;
    if envelope_version != ENVELOPE_VERSION || codec != BINCODE_FIXINT {
        return Err(CodecError::Newer(format!("envelope {envelope_version}, codec {codec}")));
    }
    let flags = u16::from_be_bytes(reader.array()?);
    let type_id = u16::from_be_bytes(reader.array()?);
    let type_version = u16::from_be_bytes(reader.array()?);
    let run = RunId(Uuid::from_bytes(reader.array()?));
    let n = u64::from_be_bytes(reader.array()?);
    let id = Uuid::from_bytes(reader.array()?);
    let at = Timestamp::from_microsecond(i64::from_be_bytes(reader.array()?))
        .map_err(|error| CodecError::Damaged(error.to_string()))?;
    let epoch = u64::from_be_bytes(reader.array()?);
    let user = reader.name()?;
    let host = reader.name()?;
    let pid = u32::from_be_bytes(reader.array()?);
    let prev = Hash(reader.array()?);
    let length = u32::from_be_bytes(reader.array()?);
    if usize::try_from(length).ok() != Some(reader.rest.len()) {
        return Err(CodecError::Damaged(format!(
            "its payload has {} bytes and should have {length}",
            reader.rest.len()
        )));
    }
    let header = Header {
        type_id,
        type_version,
        skippable: flags & SKIPPABLE != 0,
        run,
        n,
        id,
        at,
        epoch,
        actor: Actor { user, host, pid },
        prev,
    };
    Ok((header, reader.rest))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| CodecError::Damaged("it is cut off".to_owned()))?;
        self.rest = rest;
        Ok(*head)
    }

    fn name(&mut self) -> Result<String, CodecError> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        let (head, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| CodecError::Damaged("it is cut off".to_owned()))?;
        self.rest = rest;
        String::from_utf8(head.to_vec()).map_err(|_| CodecError::Damaged("a name is not UTF-8".to_owned()))
    }
}
