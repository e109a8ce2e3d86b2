//! Undoes compression while bytes come, in a thread beside, and within bounds: what is not taken is not made.
//!
//! Both ends are looked at: a file that ends within its compressed data, or has something else behind it, is damaged.

use std::io::{self, Read};

use bytes::Bytes;
use lz4_flex::frame::FrameDecoder;
use tokio::sync::mpsc;

use super::archive::ArchiveError;
use super::source::Reading;
use crate::contents::Packing;

/// How much is made at once, in bytes.
const AT_ONCE: usize = 128 << 10;
/// How many pieces may wait on each side.
const WAITING: usize = 4;
/// The largest window of zstd, as a power of two: 128 MiB, which is what zstd itself takes without being asked.
const WINDOW: u32 = 27;

/// A file on its way, as it was before it was compressed.
#[derive(Debug)]
pub struct Unpacked<'a> {
    name: String,
    reading: Reading<'a>,
    came: u64,
    aside: Option<Aside>,
}

/// The thread, and the ways to it and from it.
#[derive(Debug)]
struct Aside {
    give: Option<mpsc::Sender<Bytes>>,
    take: mpsc::Receiver<io::Result<Bytes>>,
}

impl<'a> Unpacked<'a> {
    /// What is being read, called `name` in messages.
    #[must_use]
    pub fn new(name: String, reading: Reading<'a>, packing: Packing) -> Self {
        let aside = (packing != Packing::Plain).then(|| Aside::start(packing));
        Self { name, reading, came: 0, aside }
    }

    /// What is being read, as messages have it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes have come, as they were stored.
    #[must_use]
    pub fn came(&self) -> u64 {
        self.came
    }

    /// The next bytes, or `None` at the end, of which then is sure that it is the end.
    ///
    /// # Errors
    /// As reading has them; and when what came cannot be what was compressed, all of it.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ArchiveError> {
        let Some(aside) = &mut self.aside else {
            let chunk = self.reading.chunk().await?;
            self.came = self.came.saturating_add(chunk.as_ref().map_or(0, |chunk| chunk.len() as u64));
            return Ok(chunk);
        };
        loop {
            let Some(give) = &aside.give else {
                return told(&self.name, aside.take.recv().await);
            };
            let room = tokio::select! {
                biased;
                made = aside.take.recv() => return told(&self.name, made),
                // There is still room when what comes next has come: nobody else gives.
                room = give.reserve() => room.is_ok(),
            };
            // What is not read any more has told why.
            let chunk = if room { self.reading.chunk().await? } else { None };
            match chunk {
                Some(chunk) => {
                    self.came = self.came.saturating_add(chunk.len() as u64);
                    let _told = give.send(chunk).await;
                }
                None => aside.give = None,
            }
        }
    }
}

fn told(name: &str, made: Option<io::Result<Bytes>>) -> Result<Option<Bytes>, ArchiveError> {
    made.transpose().map_err(|error| {
        ArchiveError::damaged(name, format!("what it was compressed from cannot be had again: {error}"))
    })
}

impl Aside {
    fn start(packing: Packing) -> Aside {
        let (give, source) = mpsc::channel(WAITING);
        let (tell, take) = mpsc::channel(WAITING);
        tokio::task::spawn_blocking(move || {
            let source = Chunks { source, rest: Bytes::new(), ended: false };
            let made = match packing {
                Packing::Plain => make(source, &tell),
                Packing::Gzip => make(flate2::read::MultiGzDecoder::new(source), &tell),
                Packing::Lz4 => make(Frames(FrameDecoder::new(source)), &tell),
                Packing::Zstd => zstd::stream::read::Decoder::new(source).and_then(|mut decoder| {
                    decoder.window_log_max(WINDOW)?;
                    make(decoder, &tell)
                }),
            };
            if let Err(error) = made {
                // Nobody listens any more when the rest is not wanted.
                let _gone = tell.blocking_send(Err(error));
            }
        });
        Aside { give: Some(give), take }
    }
}

/// Makes all there is, as far as somebody takes it.
fn make(mut from: impl Read, tell: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut buffer = vec![0; AT_ONCE];
    loop {
        let made = match from.read(&mut buffer) {
            Ok(made) => made,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = Bytes::copy_from_slice(buffer.get(..made).unwrap_or_default());
        if made == 0 || tell.blocking_send(Ok(bytes)).is_err() {
            return Ok(());
        }
    }
}

/// What comes through a channel, to be read.
struct Chunks {
    source: mpsc::Receiver<Bytes>,
    rest: Bytes,
    ended: bool,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.source.blocking_recv() {
                Some(chunk) => self.rest = chunk,
                None => {
                    self.ended = true;
                    return Ok(0);
                }
            }
        }
        let length = buffer.len().min(self.rest.len());
        let chunk = self.rest.split_to(length);
        buffer.get_mut(..length).unwrap_or_default().copy_from_slice(&chunk);
        Ok(length)
    }
}

/// LZ4 frames to the last. The decoder ends with each of them, whatever follows.
struct Frames(FrameDecoder<Chunks>);

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let made = self.0.read(buffer)?;
            if made > 0 || self.0.get_ref().ended {
                return Ok(made);
            }
        }
    }
}
