//! How much is held and sent at a time. Tests use smaller ones.

/// See the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Most bytes of copies in one message.
    pub(super) message_bytes: usize,
    /// Most bytes of copies for filling in a message that has nothing else: others wait for it.
    pub(super) fill_bytes_alone: usize,
    /// The same in a message whose copies somebody waits for.
    pub(super) fill_bytes_beside: usize,
    /// A queue takes in no more once it holds this many bytes.
    pub(super) queue_bytes: usize,
    /// The same while the search shard does not answer: what it misses is read again later.
    pub(super) queue_bytes_in_trouble: usize,
    /// Most rows that one round looks at; it ends between two versions.
    pub(super) round_rows: usize,
    /// Most bytes of copies that one round brings.
    pub(super) round_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_bytes: 4 << 20,
            fill_bytes_alone: 1 << 20,
            fill_bytes_beside: 256 << 10,
            queue_bytes: 32 << 20,
            queue_bytes_in_trouble: 1 << 20,
            round_rows: 4_096,
            round_bytes: 16 << 20,
        }
    }
}
