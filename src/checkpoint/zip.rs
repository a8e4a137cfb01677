//! The container of torch files: a zip archive whose entries are stored as they are.
//!
//! Gets the bytes of a file, returns names and byte ranges of its entries, found through the archive's own directory.
//! What holds then: every range lies in the file and no name is there twice. What torch never writes, such as
//! compression, encryption or an archive in several parts, is refused by name. Never copies an entry.

use std::collections::BTreeMap;
use std::ops::Range;

const END: [u8; 4] = *b"PK\x05\x06";
const END64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR64: [u8; 4] = *b"PK\x06\x07";
const DIRECTORY: [u8; 4] = *b"PK\x01\x02";
/// What an entry, and so the file, begins with.
pub(super) const LOCAL: [u8; 4] = *b"PK\x03\x04";

/// Bytes of the record at the end without its comment, and of the longest comment.
const END_BYTES: usize = 22;
const MAX_COMMENT_BYTES: usize = 65535;
const LOCATOR64_BYTES: usize = 20;

/// What 32 bits say where the number is in a further field of 64.
const IN_EXTRA: u64 = 0xffff_ffff;

/// A reader of little-endian numbers at a place.
struct At<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> At<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let taken = end.map(|end| &self.bytes[self.at..end]).ok_or_else(|| self.ends())?;
        self.at += count;
        Ok(taken)
    }

    fn ends(&self) -> String {
        format!("it ends at byte {} where its directory goes on: truncated?", self.bytes.len())
    }

    fn number(&mut self, count: usize) -> Result<u64, String> {
        Ok(self.take(count)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

/// The entries of an archive: where the bytes of each name lie.
pub(super) fn entries(bytes: &[u8]) -> Result<BTreeMap<String, Range<usize>>, String> {
    let (count, directory) = directory(bytes)?;
    let mut at = At { bytes, at: directory };
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let (name, range) = entry(&mut at)?;
        if entries.contains_key(&name) {
            return Err(format!("it has two entries `{name}`"));
        }
        entries.insert(name, range);
    }
    Ok(entries)
}

/// How many entries there are, and where the directory begins.
fn directory(bytes: &[u8]) -> Result<(u64, usize), String> {
    let last = bytes.len().checked_sub(END_BYTES).ok_or("it ends before its directory: truncated?")?;
    let first = last.saturating_sub(MAX_COMMENT_BYTES);
    // Comments may hold the signature as well; the record that matters is followed by its comment alone.
    let end = (first..=last).rev().find(|at| {
        bytes[*at..].starts_with(&END) && usize::from(bytes[at + 20]) + 256 * usize::from(bytes[at + 21]) == last - at
    });
    let end = end.ok_or("its directory is missing: truncated?")?;
    let mut at = At { bytes, at: end + 4 };
    let (disk, directory_disk) = (at.number(2)?, at.number(2)?);
    let (_, count, _, offset) = (at.number(2)?, at.number(2)?, at.number(4)?, at.number(4)?);
    let locator = end.checked_sub(LOCATOR64_BYTES).filter(|at| bytes[*at..].starts_with(&LOCATOR64));
    let (count, offset) = match locator {
        Some(locator) => {
            let end64 = At { bytes, at: locator + 8 }.number(8)?;
            let end64 = usize::try_from(end64).unwrap_or(usize::MAX);
            let mut at = At { bytes, at: end64 };
            if at.take(4)? != END64 {
                return Err(format!("its directory is not at byte {end64}, where it says"));
            }
            at.take(28)?;
            (at.number(8)?, {
                at.take(8)?;
                at.number(8)?
            })
        }
        None if disk != 0 || directory_disk != 0 => return Err("it is one part of an archive in several".into()),
        None => (count, offset),
    };
    Ok((count, usize::try_from(offset).unwrap_or(usize::MAX)))
}

/// The entry of the directory at `at`, which then is at the next.
fn entry(at: &mut At<'_>) -> Result<(String, Range<usize>), String> {
    let begin = at.at;
    if at.take(4)? != DIRECTORY {
        return Err(format!("its directory has no entry at byte {begin}, where it says"));
    }
    at.take(4)?;
    let (flags, method) = (at.number(2)?, at.number(2)?);
    at.take(8)?;
    let (mut packed, mut size) = (at.number(4)?, at.number(4)?);
    let (name_len, extra_len, comment_len) = (at.number(2)?, at.number(2)?, at.number(2)?);
    at.take(8)?;
    let mut local = at.number(4)?;
    let name = at.take(name_len as usize)?;
    let name = std::str::from_utf8(name).map_err(|_| format!("the name of the entry at byte {begin} is no UTF-8"))?;
    let mut extra = At { bytes: at.take(extra_len as usize)?, at: 0 };
    at.take(comment_len as usize)?;
    while extra.at < extra.bytes.len() {
        let (id, len) = (extra.number(2)?, extra.number(2)?);
        let mut field = At { bytes: extra.take(len as usize)?, at: 0 };
        if id == 1 {
            for number in [&mut size, &mut packed, &mut local] {
                if *number == IN_EXTRA {
                    *number = field.number(8)?;
                }
            }
        }
    }
    if flags & 1 != 0 {
        return Err(format!("entry `{name}` is encrypted"));
    }
    if method != 0 || packed != size {
        return Err(format!("entry `{name}` is compressed, which torch never does"));
    }
    let file = at.bytes;
    let mut at = At { bytes: file, at: usize::try_from(local).unwrap_or(usize::MAX) };
    if at.take(4)? != LOCAL {
        return Err(format!("entry `{name}` is not at byte {local}, where the directory says"));
    }
    at.take(22)?;
    let (name_len, extra_len) = (at.number(2)?, at.number(2)?);
    if at.take(name_len as usize)? != name.as_bytes() {
        return Err(format!("the entry at byte {local} is not `{name}`, as the directory says"));
    }
    at.take(extra_len as usize)?;
    let start = at.at;
    at.take(usize::try_from(size).unwrap_or(usize::MAX))?;
    Ok((name.to_owned(), start..at.at))
}
