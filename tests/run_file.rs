//! The file of a run in the journal, read and written as it is told in docs/journal.md.

use std::fs;

use crate::stage::Site;

/// The encoded events in the file of a run.
pub fn events(site: &Site<'_>, id: &str) -> Vec<Vec<u8>> {
    let file = fs::read(site.journal().join(format!("runs/{id}.log"))).unwrap();
    let (mut events, mut rest) = (Vec::new(), file.as_slice());
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (event, after) = after[4..].split_at(u32::from_be_bytes(*length).try_into().unwrap());
        events.push(event.to_vec());
        rest = after;
    }
    events
}

/// Makes the file of a run hold these, as its owner would: the marker first.
pub fn write(site: &Site<'_>, id: &str, events: &[Vec<u8>]) {
    let mut file = Vec::new();
    for event in events {
        file.extend(u32::try_from(event.len()).unwrap().to_be_bytes());
        file.extend(crc32c::crc32c(event).to_be_bytes());
        file.extend(event);
    }
    fs::write(site.journal().join("open").join(id), "").unwrap();
    fs::write(site.journal().join(format!("runs/{id}.log")), file).unwrap();
}

/// Makes the checksum, which is the last thing in an event, one of what comes before it.
pub fn seal(event: &mut [u8]) {
    let checked = event.len() - 4;
    let sum = crc32c::crc32c(&event[..checked]);
    event[checked..].copy_from_slice(&sum.to_be_bytes());
}
