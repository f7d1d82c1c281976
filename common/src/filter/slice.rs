//! Slices of the id space: a deterministic part of all points, for parallel scans and samples.

use crate::point::PointId;

/// One of `total` disjoint slices that together hold all ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Which slice, from 0, below `total`.
    pub index: u32,
    /// How many slices, at least 1.
    pub total: u32,
}

impl Slice {
    /// Whether the id is in the slice: the SipHash-2-4 of its bytes with a zero key, modulo `total`, is `index`. The
    /// bytes are 8 little-endian ones of a number, or the 16 of a UUID in their usual order.
    pub fn contains(&self, id: PointId) -> bool {
        let hash = match id {
            PointId::Num(number) => sip_hash_2_4([0, 0], &number.to_le_bytes()),
            PointId::Uuid(uuid) => sip_hash_2_4([0, 0], uuid.as_bytes()),
        };
        hash % u64::from(self.total) == u64::from(self.index)
    }
}

/// SipHash-2-4 (Aumasson, Bernstein, "SipHash: a fast short-input PRF", 2012).
fn sip_hash_2_4(key: [u64; 2], bytes: &[u8]) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut chunks = bytes.chunks_exact(8);
    let mut absorb = |word: u64| {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    };
    for chunk in &mut chunks {
        absorb(u64::from_le_bytes(chunk.try_into().expect("a chunk has 8 bytes")));
    }
    // The last word holds what is left of the bytes, and their number modulo 256 on top.
    let mut last = [0; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    last[7] = bytes.len() as u8;
    absorb(u64::from_le_bytes(last));
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// The example of the paper's appendix A, and the first of its reference vectors.
    #[test]
    fn the_hash_is_that_of_the_paper() {
        let bytes: Vec<u8> = (0..15).collect();
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(sip_hash_2_4(key, &bytes), 0xa129_ca61_49be_45e5);
        assert_eq!(sip_hash_2_4(key, &[]), 0x726f_db47_dd0e_0e31);
    }

    #[test]
    fn every_id_is_in_exactly_one_slice() {
        for id in (0..1000).map(PointId::Num).chain((0..100).map(|n| PointId::Uuid(Uuid::from_u128(n)))) {
            let slices = (0..7).filter(|&index| Slice { index, total: 7 }.contains(id)).count();
            assert_eq!(slices, 1);
            assert!(Slice { index: 0, total: 1 }.contains(id));
        }
    }
}
