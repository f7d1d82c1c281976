//! What one client has seen of a collection, as a token that it can show to any coordinator: its reads then see nothing
//! older, whoever answers them.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use parking_lot::Mutex;
use uuid::Uuid;
use vicinal_common::ids::{CollectionId, LogIndex, MapVersion, ShardId};
use vicinal_common::limits::SHARDS_PER_COLLECTION_MAX;

use crate::meta::Collection;
use crate::shard_client::Health;

/// First byte of a token of a collection where no map was seen.
const VERSION: u8 = 1;
/// First byte of a token with the version of a map in front of the shards.
const VERSION_WITH_MAP: u8 = 2;
/// Shards in a token, at most: home shards, and search shards, of which some are of the map before.
const SHARDS_MAX: usize = 2 * SHARDS_PER_COLLECTION_MAX as usize;
/// Bytes before the shards: version, collection.
const HEAD_BYTES: usize = 17;
/// Bytes of the checksum at the end.
const SUM_BYTES: usize = 4;
/// Longest token in bytes: two numbers of ten bytes for each shard, and one for the map.
const TOKEN_BYTES_MAX: usize = HEAD_BYTES + 10 + SHARDS_MAX * 20 + SUM_BYTES;
/// Longest token as text.
const TEXT_BYTES_MAX: usize = TOKEN_BYTES_MAX.div_ceil(3) * 4;

/// Log indices by shard.
type Floors = BTreeMap<ShardId, LogIndex>;

/// What was seen of one collection.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    collection: CollectionId,
    /// No older map names all shards that hold what was seen; 0 when that is known of none.
    map: MapVersion,
    floors: Floors,
}

/// What a request has been shown and what it has seen so far. One for each request.
#[derive(Debug, Default)]
pub struct Session {
    given: Option<Seen>,
    seen: Mutex<Option<Seen>>,
    turn: OnceLock<u64>,
}

impl Session {
    /// Begins with the token a client sent. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Session, String> {
        let given = decode(text)?;
        Ok(Session { given: Some(given), ..Session::default() })
    }

    /// For what the same request reads of another collection: begins with what the client sent, and what is seen with it is
    /// not told to the client, whose next token is of the collection that the request is about.
    pub(crate) fn apart(&self) -> Session {
        Session { given: self.given.clone(), ..Session::default() }
    }

    /// The request is about this collection, as it is now. A token of another one, or of one that was deleted and created
    /// again, says nothing about it.
    pub(crate) fn enter(&self, collection: &Collection) {
        let mut seen = self.seen.lock();
        if seen.as_ref().is_some_and(|seen| seen.collection == collection.id) {
            return;
        }
        let given = self.given.as_ref().filter(|given| given.collection == collection.id);
        let floors = given.into_iter().flat_map(|given| &given.floors);
        let floors = floors.filter(|(shard, _)| collection.shard(**shard).is_some());
        let floors = floors.map(|(shard, index)| (*shard, *index)).collect();
        // Where home shards answer no map counts, and none of those that were.
        let map = given.filter(|_| collection.routing.cluster().is_some()).map_or(MapVersion(0), |given| given.map);
        *seen = Some(Seen { collection: collection.id, map, floors });
    }

    /// What a read of the shard must have seen for this client.
    pub(crate) fn floor(&self, shard: ShardId) -> Option<LogIndex> {
        self.seen.lock().as_ref()?.floors.get(&shard).copied()
    }

    /// The client is about to see the shard as of this log index.
    pub(crate) fn note(&self, collection: CollectionId, shard: ShardId, index: LogIndex) {
        let mut seen = self.seen.lock();
        if let Some(seen) = seen.as_mut().filter(|seen| seen.collection == collection) {
            let floor = seen.floors.entry(shard).or_default();
            *floor = (*floor).max(index);
        }
    }

    /// The oldest map that names all shards which hold what this client has seen; 0 when any may.
    pub(crate) fn map_floor(&self) -> MapVersion {
        self.seen.lock().as_ref().map_or(MapVersion(0), |seen| seen.map)
    }

    /// The client is about to see what older maps do not lead to.
    pub(crate) fn note_map(&self, collection: CollectionId, map: MapVersion) {
        let mut seen = self.seen.lock();
        if let Some(seen) = seen.as_mut().filter(|seen| seen.collection == collection) {
            seen.map = seen.map.max(map);
        }
    }

    /// The same number for all parts of a request, so that its reads prefer the same nodes.
    pub(crate) fn turn(&self, health: &Health) -> u64 {
        *self.turn.get_or_init(|| health.turn())
    }

    /// The token to give to the client; `None` when nothing was seen.
    pub fn token(&self) -> Option<String> {
        let seen = self.seen.lock();
        seen.as_ref().filter(|seen| !seen.floors.is_empty()).map(encode)
    }
}

/// A token without a map has the older version, which every coordinator knows.
fn encode(seen: &Seen) -> String {
    let Seen { collection, map, floors } = seen;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + SUM_BYTES + 2 + floors.len() * 6);
    bytes.push(if map.0 == 0 { VERSION } else { VERSION_WITH_MAP });
    bytes.extend_from_slice(collection.0.as_bytes());
    if map.0 > 0 {
        put_number(&mut bytes, map.0);
    }
    // Shards ascend, so the differences are small; a collection's shards have ids in a row.
    let mut last = 0;
    for (shard, index) in floors.iter().take(SHARDS_MAX) {
        put_number(&mut bytes, shard.0 - last);
        put_number(&mut bytes, index.0);
        last = shard.0;
    }
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    to_text(&bytes)
}

fn decode(text: &str) -> Result<Seen, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("it is longer than {TEXT_BYTES_MAX} bytes"));
    }
    let broken = || "it is damaged; send it as it was received, or leave it out".to_owned();
    let bytes = from_text(text).ok_or_else(broken)?;
    let (bytes, sum) = bytes.split_last_chunk::<SUM_BYTES>().ok_or_else(broken)?;
    if crc32fast::hash(bytes) != u32::from_le_bytes(*sum) {
        return Err(broken());
    }
    let (&version, rest) = bytes.split_first().ok_or_else(broken)?;
    if !(VERSION..=VERSION_WITH_MAP).contains(&version) {
        return Err(format!("it has version {version}, this server knows versions {VERSION} and {VERSION_WITH_MAP}"));
    }
    let (id, mut rest) = rest.split_first_chunk::<16>().ok_or_else(broken)?;
    let map = match version {
        VERSION_WITH_MAP => take_number(&mut rest).ok_or_else(broken)?,
        _ => 0,
    };
    let mut floors = Floors::new();
    let mut last = 0u64;
    while !rest.is_empty() {
        let shard = take_number(&mut rest).and_then(|step| last.checked_add(step)).ok_or_else(broken)?;
        let index = take_number(&mut rest).ok_or_else(broken)?;
        if (shard <= last && !floors.is_empty()) || floors.len() == SHARDS_MAX {
            return Err(broken());
        }
        floors.insert(ShardId(shard), LogIndex(index));
        last = shard;
    }
    Ok(Seen { collection: CollectionId(Uuid::from_bytes(*id)), map: MapVersion(map), floors })
}

/// Seven bits a byte, the lowest first.
fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for place in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        // Of the tenth byte only one bit has room.
        if place == 9 && bits > 1 {
            return None;
        }
        number |= bits << (7 * place);
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Base64 in its URL-safe alphabet, without padding.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn to_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let digits = (0..=chunk.len()).map(|place| ALPHABET[(group >> (18 - 6 * place)) as usize & 63]);
        text.extend(digits.map(char::from));
    }
    text
}

fn from_text(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        let mut group = 0u32;
        for digit in chunk {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            group = group << 6 | u32::from(value);
        }
        group <<= 6 * (4 - chunk.len());
        let count = match chunk.len() {
            1 => return None,
            length => length - 1,
        };
        bytes.extend(group.to_be_bytes()[1..].iter().take(count));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_seen() -> impl Strategy<Value = Seen> {
        let floors = proptest::collection::btree_map(
            any::<u64>().prop_map(ShardId),
            any::<u64>().prop_map(LogIndex),
            0..SHARDS_MAX + 1,
        );
        let map = prop_oneof![Just(0), 1u64..1_000, any::<u64>()];
        (any::<u128>(), map, floors).prop_map(|(id, map, floors)| Seen {
            collection: CollectionId(Uuid::from_u128(id)),
            map: MapVersion(map),
            floors,
        })
    }

    fn seen(collection: CollectionId, map: u64, index: u64) -> Seen {
        Seen { collection, map: MapVersion(map), floors: Floors::from([(ShardId(1), LogIndex(index))]) }
    }

    proptest! {
        #[test]
        fn tokens_come_back_as_they_were(seen in any_seen()) {
            let text = encode(&seen);
            prop_assert!(text.len() <= TEXT_BYTES_MAX && text.bytes().all(|byte| ALPHABET.contains(&byte)));
            prop_assert_eq!(decode(&text), Ok(seen));
        }

        #[test]
        fn damage_is_noticed(seen in any_seen(), at: prop::sample::Index, digit in 0usize..64) {
            let text = encode(&seen);
            let mut damaged = text.clone().into_bytes();
            let place = at.index(damaged.len());
            damaged[place] = ALPHABET[digit];
            let damaged = String::from_utf8(damaged).unwrap();
            let cut = &text[..place];
            prop_assert!(decode(cut).is_err());
            // The last digit may carry bits that mean nothing.
            prop_assert!(damaged == text || place == text.len() - 1 || decode(&damaged).is_err());
        }

        #[test]
        fn anything_at_all_is_read_without_panic(
            text in ".*",
            version in 0u8..4,
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let _ = decode(&text);
            let mut bytes = [&[version][..], &bytes].concat();
            let sum = crc32fast::hash(&bytes);
            bytes.extend_from_slice(&sum.to_le_bytes());
            let read = decode(&to_text(&bytes));
            prop_assert!(read.is_err() || version == VERSION || version == VERSION_WITH_MAP);
        }
    }

    #[test]
    fn what_is_seen_apart_is_not_told() {
        let (own, other) = (CollectionId(Uuid::from_u128(7)), CollectionId(Uuid::from_u128(8)));
        let session = Session { given: Some(seen(other, 0, 5)), ..Session::default() };
        *session.seen.lock() = Some(seen(own, 0, 9));
        let apart = session.apart();
        assert_eq!(apart.given, session.given);
        *apart.seen.lock() = Some(seen(other, 0, 6));
        assert_eq!(session.token(), Some(encode(&seen(own, 0, 9))));
    }

    #[test]
    fn a_token_is_short() {
        let floors = (0..4).map(|shard| (ShardId(1_000 + shard), LogIndex(1_000_000))).collect();
        let seen = Seen { collection: CollectionId(Uuid::nil()), map: MapVersion(9), floors };
        assert!(encode(&seen).len() < 60);
    }

    #[test]
    fn tokens_of_the_version_before_are_read_and_those_without_a_map_are_such() {
        let id = CollectionId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10));
        let older = "AQECAwQFBgcICQoLDA0ODxABBQ";
        let mut bytes = from_text(older).unwrap();
        let sum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        let older = to_text(&bytes);
        assert_eq!(decode(&older), Ok(seen(id, 0, 5)));
        assert_eq!(encode(&seen(id, 0, 5)), older);
        assert_ne!(encode(&seen(id, 1, 5)), older);
    }

    #[test]
    fn the_newest_map_stays_with_the_client() {
        let id = CollectionId(Uuid::from_u128(7));
        let session = Session::default();
        session.note_map(id, MapVersion(4));
        assert_eq!(session.map_floor(), MapVersion(0), "the request is about no collection yet");
        *session.seen.lock() = Some(seen(id, 2, 9));
        session.note_map(id, MapVersion(4));
        session.note_map(id, MapVersion(3));
        session.note_map(CollectionId(Uuid::from_u128(8)), MapVersion(9));
        assert_eq!(session.token(), Some(encode(&seen(id, 4, 9))));
    }
}
