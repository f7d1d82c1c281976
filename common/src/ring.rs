//! Ids to shards: an id hashes to one of 4,096 tokens, and a stored table says which shard owns each token.
//!
//! The consistent-hash ring proposes a table once, when a collection is created; after that the table is the truth and
//! only explicit moves of tokens change it. Everything here is pure and portable: what is hashed are fixed-width
//! little-endian bytes, so every build on every machine computes the same table. The values are pinned by tests: a
//! changed one would lose points of existing collections.

use std::hash::{BuildHasher, Hash, Hasher};

use consistent_hash_ring::{Ring, RingBuilder};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::error::{Error, Result};
use crate::ids::ShardId;
use crate::limits::{SHARDS_PER_COLLECTION_MAX, TOKENS, VIRTUAL_NODES};
use crate::point::PointId;

// An owner is stored as one byte, and a token is the top 12 bits of a hash.
const _: () = assert!(SHARDS_PER_COLLECTION_MAX <= 256);
const _: () = assert!(TOKENS == 1 << 12);

/// The token of an id, below [`TOKENS`]: the top 12 bits of xxh3-64 over [`PointId::to_bytes`].
pub fn token_of(id: PointId) -> u16 {
    let (bytes, len) = id.to_bytes();
    (xxh3_64(&bytes[..len]) >> 52) as u16
}

/// Which shard owns each token of a collection. Every token has exactly one owner; a shard may own none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TableForm")]
pub struct TokenTable {
    /// 1 to 256 shards, each once.
    shards: Vec<ShardId>,
    /// For each token the position of its owner in `shards`; len = [`TOKENS`].
    owners: Vec<u8>,
}

/// The fields as they are read, before they are checked.
#[derive(Deserialize)]
struct TableForm {
    shards: Vec<ShardId>,
    owners: Vec<u8>,
}

impl TryFrom<TableForm> for TokenTable {
    type Error = Error;

    fn try_from(form: TableForm) -> Result<TokenTable> {
        check_shards(&form.shards).map_err(|e| Error::Corrupt(format!("token table: {e}")))?;
        if form.owners.len() != TOKENS {
            let tokens = form.owners.len();
            return Err(Error::Corrupt(format!("token table has {tokens} tokens instead of {TOKENS}")));
        }
        let shards = form.shards.len();
        if let Some(token) = form.owners.iter().position(|&owner| usize::from(owner) >= shards) {
            return Err(Error::Corrupt(format!("token {token} of the token table belongs to no shard of {shards}")));
        }
        Ok(TokenTable { shards: form.shards, owners: form.owners })
    }
}

impl TokenTable {
    /// Spreads all tokens over `shards`, each getting `TOKENS / shards` of them, rounded down or up.
    ///
    /// The table depends on the number of shards alone; the n-th shard given takes the n-th place. The ring (Karger et
    /// al., "Consistent hashing and random trees", 1997, with 256 virtual nodes a shard) proposes an owner for each
    /// token; then shards above their share give the excess away, so that no more tokens move than must.
    ///
    /// Takes milliseconds for tens of shards, about a second for 256. `BadInput` for no shards, too many or doubles.
    pub fn propose(shards: &[ShardId]) -> Result<TokenTable> {
        check_shards(shards).map_err(Error::BadInput)?;
        let ring = ring_of(shards.len())?;
        let mut owners: Vec<u8> = (0..TOKENS as u16).map(|token| ring.get(TokenKey(token)).0).collect();
        level(&ring, shards.len(), &mut owners);
        Ok(TokenTable { shards: shards.to_vec(), owners })
    }

    /// The shard a point belongs to.
    pub fn shard_of(&self, id: PointId) -> ShardId {
        self.shards[usize::from(self.owners[usize::from(token_of(id))])]
    }

    /// All shards, in the order they were given.
    pub fn shards(&self) -> &[ShardId] {
        &self.shards
    }

    /// How many tokens the shard owns; 0 for a shard that is not in the table.
    pub fn tokens_of(&self, shard: ShardId) -> usize {
        self.tokens().filter(|&(_, owner)| owner == shard).count()
    }

    /// Each token with its shard, in token order.
    pub fn tokens(&self) -> impl Iterator<Item = (u16, ShardId)> + '_ {
        (0u16..).zip(self.owners.iter().map(|&owner| self.shards[usize::from(owner)]))
    }
}

/// Says in words what is wrong with a list of shards.
fn check_shards(shards: &[ShardId]) -> Result<(), String> {
    let count = shards.len();
    if !(1..=SHARDS_PER_COLLECTION_MAX as usize).contains(&count) {
        return Err(format!("{count} shards, allowed are 1 to {SHARDS_PER_COLLECTION_MAX}"));
    }
    let mut sorted = shards.to_vec();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("shard {} is named twice", pair[0])),
        None => Ok(()),
    }
}

/// Place of a shard on the ring. Hashes as 8 little-endian bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct ShardKey(u8);

impl Hash for ShardKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&u64::from(self.0).to_le_bytes());
    }
}

/// A token on the ring. Hashes as 2 little-endian bytes: were they 8, the first tokens would all fall exactly on the
/// first virtual node of the shard of the same number.
struct TokenKey(u16);

impl Hash for TokenKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0.to_le_bytes());
    }
}

/// Builds hashers of xxh3-64, seed 0.
#[derive(Clone, Copy)]
struct PortableHashing;

impl BuildHasher for PortableHashing {
    type Hasher = PortableHasher;

    fn build_hasher(&self) -> PortableHasher {
        PortableHasher(Xxh3::new())
    }
}

struct PortableHasher(Xxh3);

impl Hasher for PortableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    // The ring finds a shard's next virtual node by hashing the u64 hash of the last one. Without this the std default
    // would feed native-endian bytes.
    fn write_u64(&mut self, value: u64) {
        self.0.update(&value.to_le_bytes());
    }

    fn finish(&self) -> u64 {
        self.0.digest()
    }
}

/// The ring of shard places `0..shards`.
fn ring_of(shards: usize) -> Result<Ring<ShardKey, PortableHashing>> {
    let keys = (0..=u8::MAX).take(shards).map(ShardKey);
    let ring = RingBuilder::new(PortableHashing).vnodes(VIRTUAL_NODES).nodes_iter(keys).build();
    // Virtual nodes with equal hashes overwrite each other in silence. Places and hash are fixed, and a test builds the
    // largest ring, so this cannot fire unless one of them was changed.
    if ring.len() != shards || ring.vnodes() != shards * VIRTUAL_NODES {
        return Err(Error::Internal(format!("virtual nodes of the ring of {shards} shards collide")));
    }
    Ok(ring)
}

/// Moves tokens until each of `shards` owns its share: bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2018) with the
/// tightest bound.
fn level(ring: &Ring<ShardKey, PortableHashing>, shards: usize, owners: &mut [u8]) {
    let mut loads = vec![0usize; shards];
    for &owner in owners.iter() {
        loads[usize::from(owner)] += 1;
    }
    // The shards that own most anyway get the odd tokens: so the fewest move.
    let mut by_load: Vec<usize> = (0..shards).collect();
    by_load.sort_by_key(|&shard| (std::cmp::Reverse(loads[shard]), shard));
    let mut shares = vec![TOKENS / shards; shards];
    for &shard in &by_load[..TOKENS % shards] {
        shares[shard] += 1;
    }
    // Tokens are given away in the order of their hash, which is the same for every number of shards: tables of
    // neighbouring sizes differ little.
    let mut order: Vec<u16> = (0..TOKENS as u16).collect();
    order.sort_by_key(|token| (xxh3_64(&token.to_le_bytes()), *token));
    for token in order {
        let owner = usize::from(owners[usize::from(token)]);
        if loads[owner] <= shares[owner] {
            continue;
        }
        let place = ring.replicas(TokenKey(token)).find(|key| loads[usize::from(key.0)] < shares[usize::from(key.0)]);
        // Shares add up to all tokens: while one shard is above its share, another is below, and the ring names all.
        let place = place.expect("some shard is below its share").0;
        loads[owner] -= 1;
        loads[usize::from(place)] += 1;
        owners[usize::from(token)] = place;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn shards(count: u64) -> Vec<ShardId> {
        (0..count).map(|n| ShardId(100 + 7 * n)).collect()
    }

    fn digest(table: &TokenTable) -> u64 {
        xxh3_64(&table.owners)
    }

    /// These values are a storage format: if this test fails, the change is wrong, not the test.
    #[test]
    fn tables_and_tokens_never_change() {
        let digests = [1, 2, 3, 8, 64].map(|n| digest(&TokenTable::propose(&shards(n)).unwrap()));
        assert_eq!(
            digests,
            [
                10_653_106_456_947_493_306,
                17_590_065_830_766_256_542,
                6_580_687_319_476_899_988,
                11_942_910_016_368_355_051,
                175_204_080_718_492_526
            ]
        );
        let uuids = ["550e8400-e29b-41d4-a716-446655440000", "00000000-0000-0000-0000-000000000000"];
        let ids = [0, 1, 42, 1 << 32, u64::MAX].map(PointId::Num).into_iter();
        let ids: Vec<_> = ids.chain(uuids.map(|u| PointId::Uuid(Uuid::parse_str(u).unwrap()))).collect();
        let tokens: Vec<_> = ids.iter().map(|&id| token_of(id)).collect();
        assert_eq!(tokens, [836, 1196, 1585, 1353, 1226, 580, 2649]);
        let table = TokenTable::propose(&[ShardId(10), ShardId(20), ShardId(30), ShardId(40)]).unwrap();
        let owners: Vec<_> = ids.iter().map(|&id| table.shard_of(id).0).collect();
        assert_eq!(owners, [20, 40, 30, 20, 10, 30, 40]);
    }

    #[test]
    fn the_largest_ring_has_no_colliding_virtual_nodes() {
        let ring = ring_of(SHARDS_PER_COLLECTION_MAX as usize).unwrap();
        assert_eq!(ring.vnodes(), 65_536);
    }

    #[test]
    fn every_size_is_balanced_within_one_token() {
        for count in (1..40).chain([64, 100, 128, 255, 256]) {
            let table = TokenTable::propose(&shards(count)).unwrap();
            let loads: Vec<_> = table.shards().iter().map(|&shard| table.tokens_of(shard)).collect();
            assert_eq!(loads.iter().sum::<usize>(), TOKENS);
            let (min, max) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            assert!(max - min <= 1, "{count} shards: {min} to {max}");
        }
    }

    #[test]
    fn one_more_shard_moves_little_more_than_its_share() {
        for count in 1..32 {
            let (old, new) = (shards(count), shards(count + 1));
            let (old, new) = (TokenTable::propose(&old).unwrap(), TokenTable::propose(&new).unwrap());
            let moved = old.tokens().zip(new.tokens()).filter(|(a, b)| a.1 != b.1).count();
            let share = TOKENS / (count as usize + 1);
            assert!(moved <= share * 8 / 5, "{count} shards and one: moved {moved}, its share is {share}");
        }
    }

    #[test]
    fn bad_lists_of_shards_are_refused() {
        assert!(TokenTable::propose(&[]).is_err());
        assert!(TokenTable::propose(&shards(257)).is_err());
        let error = TokenTable::propose(&[ShardId(3), ShardId(4), ShardId(3)]).unwrap_err();
        assert!(error.to_string().contains("shard 3 is named twice"), "{error}");
    }

    #[test]
    fn a_damaged_table_is_not_decoded() {
        let table = TokenTable::propose(&shards(3)).unwrap();
        let bytes = postcard::to_stdvec(&table).unwrap();
        assert!(bytes.len() < TOKENS + 32);
        assert_eq!(postcard::from_bytes::<TokenTable>(&bytes).unwrap(), table);
        let json = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<TokenTable>(&json).unwrap(), table);
        let mut stranger = table.clone();
        stranger.owners[5] = 3;
        let mut short = table.clone();
        short.owners.pop();
        let mut doubled = table.clone();
        doubled.shards[1] = doubled.shards[0];
        let none = TokenTable { shards: vec![], owners: vec![0; TOKENS] };
        for bad in [stranger, short, doubled, none] {
            let bytes = postcard::to_stdvec(&bad).unwrap();
            assert!(postcard::from_bytes::<TokenTable>(&bytes).is_err());
        }
    }

    proptest! {
        #[test]
        fn tables_do_not_depend_on_the_ids_of_shards(count in 1u64..24, ids in any::<[u64; 24]>(), point: u64) {
            let mut ids: Vec<_> = ids.map(ShardId).into();
            ids.truncate(count as usize);
            prop_assume!(check_shards(&ids).is_ok());
            let (table, plain) = (TokenTable::propose(&ids).unwrap(), TokenTable::propose(&shards(count)).unwrap());
            prop_assert_eq!(&table.owners, &plain.owners);
            let id = PointId::Num(point);
            prop_assert!(token_of(id) < TOKENS as u16);
            let owner = plain.shards.iter().position(|&s| s == plain.shard_of(id)).unwrap();
            prop_assert_eq!(table.shard_of(id), ids[owner]);
        }
    }
}
