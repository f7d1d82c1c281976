//! Random numbers as a seam: identities come from here, so that a simulation can draw them from its seed.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::ids::{NodeId, RequestId};

/// A source of random numbers shared by threads.
pub trait Rng: Send + Sync + 'static {
    /// The next number, uniform over all values.
    fn next_u64(&self) -> u64;

    /// A fresh request id.
    fn request_id(&self) -> RequestId {
        RequestId((u128::from(self.next_u64()) << 64) | u128::from(self.next_u64()))
    }

    /// A fresh raft identity, never 0. Kept below 2^53 so that JSON readers of any language show it unchanged.
    fn node_id(&self) -> NodeId {
        NodeId((self.next_u64() >> 11).max(1))
    }

    /// A fresh random UUID (version 4).
    fn uuid(&self) -> uuid::Uuid {
        let bytes = self.request_id().0.to_be_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

/// The operating system's random numbers, or a seeded sequence.
pub struct SeededRng(Mutex<StdRng>);

impl SeededRng {
    /// Seeded by the operating system.
    pub fn from_os() -> SeededRng {
        SeededRng(Mutex::new(StdRng::from_rng(&mut rand::rng())))
    }

    /// The sequence of `seed`.
    pub fn from_seed(seed: u64) -> SeededRng {
        SeededRng(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Rng for SeededRng {
    fn next_u64(&self) -> u64 {
        self.0.lock().random()
    }
}
