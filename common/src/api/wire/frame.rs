//! Frames: a head, the message, a checksum over both; and reading a message without ever believing a length.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};

// Runs of floats are copied as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"), "frames are written in the machine's byte order");

/// First bytes of every frame.
const MAGIC: [u8; 2] = *b"VW";
/// Version of the whole format.
const VERSION: u8 = 7;
/// Bytes before the message: magic, version, kind, length of the message.
const HEAD: usize = 8;
/// Bytes after it: xxh3 of everything before.
const SUM: usize = 8;
/// Elements for which room is made before any is read: a list grows beyond it only with what it really holds.
const ROOM_MAX: usize = 1024;

/// Writes one frame.
pub struct Writer {
    bytes: Vec<u8>,
    limit: usize,
    is_full: bool,
}

impl Writer {
    /// A frame of this kind of at most `limit` bytes.
    pub(super) fn new(kind: u8, limit: usize) -> Writer {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, kind, 0, 0, 0, 0]);
        Writer { bytes, limit: limit.min(u32::MAX as usize), is_full: false }
    }

    /// The frame; `None` when it would be larger than its limit.
    pub(super) fn finish(mut self) -> Option<Bytes> {
        if self.is_full || self.bytes.len() + SUM > self.limit {
            return None;
        }
        let length = u32::try_from(self.bytes.len() - HEAD).ok()?;
        self.bytes[4..HEAD].copy_from_slice(&length.to_le_bytes());
        let sum = xxh3_64(&self.bytes);
        self.bytes.extend_from_slice(&sum.to_le_bytes());
        Some(Bytes::from(self.bytes))
    }

    /// Bytes as they are. Past the limit nothing is kept: the frame is not going to be sent.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.is_full |= self.bytes.len() + bytes.len() > self.limit;
        if !self.is_full {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.raw(&[value]);
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// Four bytes.
    pub fn f32(&mut self, value: f32) {
        self.raw(&value.to_le_bytes());
    }

    /// How many elements follow.
    pub fn count(&mut self, count: usize) {
        match u32::try_from(count) {
            Ok(count) => self.u32(count),
            // So many elements are larger than any frame.
            Err(_) => self.is_full = true,
        }
    }

    /// Bytes with their number in front.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// Floats with their number in front, copied in one piece.
    pub fn floats(&mut self, floats: &[f32]) {
        self.count(floats.len());
        self.raw(bytemuck::cast_slice(floats));
    }

    /// Whole numbers with their number in front, copied in one piece.
    pub fn integers(&mut self, integers: &[u32]) {
        self.count(integers.len());
        self.raw(bytemuck::cast_slice(integers));
    }

    /// A control message in postcard form, with its length in front.
    pub fn postcard(&mut self, message: &impl Serialize) {
        match postcard::to_stdvec(message) {
            Ok(bytes) => self.bytes(&bytes),
            // No message of the API can fail to be encoded; if one did, it would not be sent.
            Err(_) => self.is_full = true,
        }
    }
}

/// Reads the message of one frame.
pub struct Reader<'a> {
    frame: &'a Bytes,
    /// Where the next byte is read, and where the message ends.
    at: usize,
    end: usize,
    kind: u8,
    deadline: Option<Instant>,
}

impl<'a> Reader<'a> {
    /// Checks the frame as a whole.
    pub(super) fn open(frame: &'a Bytes) -> Result<Reader<'a>> {
        let refused = |why: String| Error::Unavailable(format!("a message between processes cannot be read: {why}"));
        if frame.len() < HEAD + SUM {
            return Err(refused(format!("it has only {} bytes", frame.len())));
        }
        if frame[..2] != MAGIC {
            return Err(refused("it is of another program".into()));
        }
        // Before the checksum: another version may have another one.
        if frame[2] != VERSION {
            let version = frame[2];
            return Err(refused(format!(
                "it has version {version}, this process knows {VERSION}: upgrade the older one"
            )));
        }
        let end = frame.len() - SUM;
        if u32::from_le_bytes(array(&frame[4..HEAD])) as usize != end - HEAD {
            return Err(refused("it is cut short".into()));
        }
        if u64::from_le_bytes(array(&frame[end..])) != xxh3_64(&frame[..end]) {
            return Err(refused("it was damaged on its way".into()));
        }
        Ok(Reader { frame, at: HEAD, end, kind: frame[3], deadline: None })
    }

    pub(super) fn kind(&self) -> u8 {
        self.kind
    }

    pub(super) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    /// The deadline of the request that is being read.
    pub(super) fn deadline(&self) -> Result<Instant> {
        self.deadline.ok_or_else(|| self.broken("an answer has no deadline"))
    }

    /// The error for a message that breaks its format although its checksum is right: the other process differs.
    pub(super) fn broken(&self, why: &str) -> Error {
        let (kind, at) = (self.kind, self.at);
        Error::Unavailable(format!("a message between processes (kind {kind}, byte {at}) cannot be read: {why}"))
    }

    /// The message must end here.
    pub(super) fn end(&self) -> Result<()> {
        if self.at == self.end { Ok(()) } else { Err(self.broken("it goes on after its end")) }
    }

    /// The next `length` bytes.
    pub fn raw(&mut self, length: usize) -> Result<&'a [u8]> {
        if length > self.end - self.at {
            return Err(self.broken("it ends too early"));
        }
        let bytes = &self.frame[self.at..self.at + length];
        self.at += length;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.raw(N).map(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Sixteen bytes as they are.
    pub fn sixteen(&mut self) -> Result<[u8; 16]> {
        self.array()
    }

    /// Four bytes.
    pub fn f32(&mut self) -> Result<f32> {
        Ok(f32::from_le_bytes(self.array()?))
    }

    /// Eight bytes that count something in memory.
    pub fn size(&mut self) -> Result<usize> {
        usize::try_from(self.u64()?).map_err(|_| self.broken("a number is too large"))
    }

    /// How many elements of at least `least` bytes follow: no more than there is room for in what is left.
    fn count(&mut self, least: usize) -> Result<usize> {
        let count = self.u32()? as usize;
        if count > (self.end - self.at) / least {
            return Err(self.broken("a list is longer than the message"));
        }
        Ok(count)
    }

    /// A list whose elements take at least `least` bytes each.
    pub fn list<T>(&mut self, least: usize, mut one: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.count(least)?;
        let mut list = Vec::with_capacity(count.min(ROOM_MAX));
        for _ in 0..count {
            list.push(one(self)?);
        }
        Ok(list)
    }

    /// Bytes with their number in front.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.count(1)?;
        self.raw(length)
    }

    /// The same without a copy: the whole frame stays in memory for as long as they do.
    pub fn shared_bytes(&mut self) -> Result<Bytes> {
        let bytes = self.bytes()?;
        Ok(self.frame.slice_ref(bytes))
    }

    /// Text with its length in bytes in front.
    pub fn text(&mut self) -> Result<&'a str> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.broken("a text is not UTF-8"))
    }

    /// Floats with their number in front. Iterating chunks of a known size compiles to one copy into what is collected.
    pub fn floats<T: FromIterator<f32>>(&mut self) -> Result<T> {
        let count = self.count(size_of::<f32>())?;
        let bytes = self.raw(count * size_of::<f32>())?;
        Ok(bytes.chunks_exact(size_of::<f32>()).map(|float| f32::from_le_bytes(array(float))).collect())
    }

    /// Whole numbers with their number in front, copied as floats are.
    pub fn integers<T: FromIterator<u32>>(&mut self) -> Result<T> {
        let count = self.count(size_of::<u32>())?;
        let bytes = self.raw(count * size_of::<u32>())?;
        Ok(bytes.chunks_exact(size_of::<u32>()).map(|integer| u32::from_le_bytes(array(integer))).collect())
    }

    /// A control message in postcard form.
    pub fn postcard<T: DeserializeOwned>(&mut self) -> Result<T> {
        let bytes = self.bytes()?;
        match postcard::take_from_bytes(bytes) {
            Ok((message, [])) => Ok(message),
            Ok(_) => Err(self.broken("a control message goes on after its end")),
            Err(error) => Err(self.broken(&format!("control message: {error}"))),
        }
    }
}

/// The bytes as an array; the caller has exactly as many.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}
