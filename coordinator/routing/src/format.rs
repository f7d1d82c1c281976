//! The bytes of a centroid map. docs/formats/centroids.md is their contract.

use vicinal_common::metric::Metric;

use crate::error::RoutingError;
use crate::map::{CENTROIDS_MAX, CentroidMap, D1Quantiles, DIM_MAX, MapParts, SHARDS_MAX};
use crate::theta::{Flatness, SIDE_MAX, ThetaTable};

const MAGIC: [u8; 8] = *b"VCNLCMAP";
const FORMAT: u32 = 2;
/// Bytes of the header, its checksum included.
const HEADER_BYTES: usize = 80;
const HEADER_CRC_AT: usize = HEADER_BYTES - 4;
/// Where in the header each field is.
mod field {
    pub(super) const FORMAT: usize = 8;
    pub(super) const METRIC: usize = 12;
    pub(super) const VERSION: usize = 16;
    pub(super) const DIM: usize = 24;
    pub(super) const CENTROIDS: usize = 28;
    pub(super) const SHARDS: usize = 32;
    pub(super) const KS: usize = 36;
    pub(super) const TARGETS: usize = 40;
    pub(super) const TAU: usize = 44;
    pub(super) const COPY_RATIO: usize = 48;
    pub(super) const D1: usize = 52;
    pub(super) const FLATNESS: usize = 68;
}

fn corrupt(offset: usize, what: impl Into<String>) -> RoutingError {
    RoutingError::Corrupt { offset, what: what.into() }
}

impl CentroidMap {
    /// The bytes: the same for the same map.
    pub fn encode(&self) -> Vec<u8> {
        let parts = self.parts();
        let mut out = vec![0u8; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        // All of them are checked to be far below 2^32.
        let word = |value: usize| (value as u32).to_le_bytes();
        put(0, &MAGIC);
        put(field::FORMAT, &FORMAT.to_le_bytes());
        put(field::METRIC, &parts.metric.code().to_le_bytes());
        put(field::VERSION, &parts.version.to_le_bytes());
        put(field::DIM, &word(parts.dim));
        put(field::CENTROIDS, &word(self.len()));
        put(field::SHARDS, &parts.shards.to_le_bytes());
        put(field::KS, &word(parts.thetas.ks().len()));
        put(field::TARGETS, &word(parts.thetas.targets().len()));
        put(field::TAU, &parts.tau.to_le_bytes());
        put(field::COPY_RATIO, &parts.copy_ratio.to_le_bytes());
        let d1 = [parts.d1.q50, parts.d1.q90, parts.d1.q99, parts.d1.q999];
        for (i, quantile) in d1.into_iter().enumerate() {
            put(field::D1 + 4 * i, &quantile.to_le_bytes());
        }
        put(field::FLATNESS, &parts.flatness.q50.to_le_bytes());
        put(field::FLATNESS + 4, &parts.flatness.q99.to_le_bytes());
        let crc = crc32fast::hash(&out[..HEADER_CRC_AT]);
        out[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());

        let floats = |out: &mut Vec<u8>, values: &[f32]| values.iter().for_each(|x| out.extend(x.to_le_bytes()));
        let words = |out: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|x| out.extend(x.to_le_bytes()));
        floats(&mut out, &parts.centroids);
        floats(&mut out, &parts.radius);
        floats(&mut out, &parts.weight);
        words(&mut out, &parts.shard_of);
        words(&mut out, parts.thetas.ks());
        floats(&mut out, parts.thetas.targets());
        floats(&mut out, parts.thetas.thetas());
        floats(&mut out, parts.thetas.tilts());
        let crc = crc32fast::hash(&out[HEADER_BYTES..]);
        out.extend(crc.to_le_bytes());
        out
    }

    /// Reads the bytes of [`CentroidMap::encode`]. Every length is checked before anything is allocated; whatever the bytes
    /// are, the outcome is a valid map or an error that says where.
    pub fn decode(bytes: &[u8]) -> Result<CentroidMap, RoutingError> {
        let header: &[u8; HEADER_BYTES] =
            bytes.first_chunk().ok_or_else(|| corrupt(bytes.len(), "it ends within the header"))?;
        let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let f32_at = |at: usize| f32::from_bits(u32_at(at));
        if header[..MAGIC.len()] != MAGIC {
            return Err(corrupt(0, "these are no bytes of a centroid map"));
        }
        if u32_at(HEADER_CRC_AT) != crc32fast::hash(&header[..HEADER_CRC_AT]) {
            return Err(corrupt(HEADER_CRC_AT, "wrong checksum of the header"));
        }
        if u32_at(field::FORMAT) != FORMAT {
            return Err(corrupt(field::FORMAT, format!("unknown format version {}", u32_at(field::FORMAT))));
        }
        let code = u32_at(field::METRIC);
        let metric = Metric::of_code(code).ok_or_else(|| corrupt(field::METRIC, format!("unknown metric {code}")))?;
        let count = |at: usize, what: &str, low: usize, high: usize| {
            let value = u32_at(at) as usize;
            let is_in_range = (low..=high).contains(&value);
            is_in_range.then_some(value).ok_or_else(|| corrupt(at, format!("{value} {what}, not {low} to {high}")))
        };
        let dim = count(field::DIM, "dimensions", 1, DIM_MAX)?;
        let centroids = count(field::CENTROIDS, "centroids", 1, CENTROIDS_MAX)?;
        let shards = count(field::SHARDS, "shards", 1, SHARDS_MAX as usize)?;
        let ks = count(field::KS, "numbers of neighbours", 0, SIDE_MAX)?;
        let targets = count(field::TARGETS, "targets", 0, SIDE_MAX)?;
        // At most 2^20 * (2^16 + 3) + 2^14 numbers of 4 bytes: no overflow in 64 bits.
        let numbers = (centroids as u64) * (dim as u64 + 3) + (ks + targets + 2 * ks * targets) as u64;
        let wanted = HEADER_BYTES as u64 + 4 * numbers + 4;
        if bytes.len() as u64 != wanted {
            return Err(corrupt(bytes.len(), format!("the header wants {wanted} bytes")));
        }
        let crc_at = bytes.len() - 4;
        if crc32fast::hash(&bytes[HEADER_BYTES..crc_at]).to_le_bytes() != bytes[crc_at..] {
            return Err(corrupt(crc_at, "wrong checksum of the arrays"));
        }
        let mut at = HEADER_BYTES;
        let mut words = |count: usize| {
            let (start, end) = (at, at + 4 * count);
            at = end;
            let chunks = bytes[start..end].as_chunks::<4>().0;
            chunks.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect::<Vec<u32>>()
        };
        let floats = |words: Vec<u32>| words.into_iter().map(f32::from_bits).collect::<Vec<f32>>();
        let (centroid_values, radius) = (floats(words(centroids * dim)), floats(words(centroids)));
        let (weight, shard_of) = (floats(words(centroids)), words(centroids));
        let table_at = HEADER_BYTES + 4 * centroids * (dim + 3);
        let (known_ks, known_targets) = (words(ks), floats(words(targets)));
        let (thetas, tilts) = (floats(words(ks * targets)), floats(words(ks * targets)));
        let thetas = ThetaTable::tilted(known_ks, known_targets, thetas, tilts)
            .map_err(|error| corrupt(table_at, error.to_string()))?;
        let version = u64::from(u32_at(field::VERSION)) | u64::from(u32_at(field::VERSION + 4)) << 32;
        let d1 = |i: usize| f32_at(field::D1 + 4 * i);
        let parts = MapParts {
            version,
            metric,
            dim,
            shards: shards as u32,
            centroids: centroid_values,
            radius,
            weight,
            shard_of,
            tau: f32_at(field::TAU),
            copy_ratio: f32_at(field::COPY_RATIO),
            thetas,
            d1: D1Quantiles { q50: d1(0), q90: d1(1), q99: d1(2), q999: d1(3) },
            flatness: Flatness { q50: f32_at(field::FLATNESS), q99: f32_at(field::FLATNESS + 4) },
        };
        CentroidMap::new(parts).map_err(|error| corrupt(HEADER_BYTES, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::map::tests::map;
    use crate::testing::METRICS;

    /// Checksums that fit whatever the bytes are now.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        if bytes.len() >= HEADER_BYTES + 4 {
            let crc = crc32fast::hash(&bytes[..HEADER_CRC_AT]);
            bytes[HEADER_CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
            let crc_at = bytes.len() - 4;
            let crc = crc32fast::hash(&bytes[HEADER_BYTES..crc_at]);
            bytes[crc_at..].copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_map_comes_back_as_it_was() {
        for metric in METRICS {
            let map = map(metric);
            let bytes = map.encode();
            assert_eq!(CentroidMap::decode(&bytes).unwrap(), map);
            assert_eq!(sealed(bytes.clone()), bytes);
            let mut parts = map.into_parts();
            parts.thetas = ThetaTable::default();
            let map = CentroidMap::new(parts).unwrap();
            assert_eq!(CentroidMap::decode(&map.encode()).unwrap(), map);
        }
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let good = map(Metric::Euclid).encode();
        let error = |bytes: &[u8]| CentroidMap::decode(bytes).unwrap_err().to_string();
        let with = |at: usize, value: u32| {
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            sealed(bytes)
        };
        assert!(error(&good[..50]).contains("offset 50: it ends within the header"));
        assert!(error(&with(0, 1)).contains("offset 0: these are no bytes"));
        assert!(error(&with(field::FORMAT, 1)).contains("unknown format version 1"));
        assert!(error(&with(field::FLATNESS, f32::NAN.to_bits())).contains("quantiles of flatness"));
        assert!(error(&with(field::METRIC, 9)).contains("unknown metric 9"));
        assert!(error(&with(field::DIM, 0)).contains("offset 24: 0 dimensions"));
        assert!(error(&with(field::CENTROIDS, 1 << 20)).contains("the header wants"));
        assert!(error(&with(field::CENTROIDS, u32::MAX)).contains("centroids, not 1 to"));
        assert!(error(&with(field::TAU, 0)).contains("temperature 0"));
        let mut flipped = good.clone();
        flipped[HEADER_BYTES + 5] ^= 1;
        assert!(error(&flipped).contains("wrong checksum of the arrays"));
        flipped = good.clone();
        flipped[20] ^= 1;
        assert!(error(&flipped).contains("wrong checksum of the header"));
        assert!(error(&[&good[..], &[0]].concat()).contains("the header wants"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
            is_cut in any::<bool>(),
            is_sealed in any::<bool>(),
        ) {
            let mut bytes = map(Metric::Cosine).encode();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if is_cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            if is_sealed {
                bytes = sealed(bytes);
            }
            // A damaged map that passes is one that encodes to these bytes.
            if let Ok(map) = CentroidMap::decode(&bytes) {
                prop_assert_eq!(map.encode(), bytes);
            }
        }

        #[test]
        fn nor_does_noise(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(CentroidMap::decode(&bytes).is_err());
            let start = [&MAGIC[..], &FORMAT.to_le_bytes()].concat();
            let _ = CentroidMap::decode(&sealed([start, bytes].concat()));
        }
    }
}
