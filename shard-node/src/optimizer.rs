//! What to merge or index next: a pure function of the segments.
//!
//! Segments are merged while there are more than the target. The smallest ones go first, together with every larger
//! one that is at most as large as all smaller ones together: each merge then at least doubles the rows it touches
//! unless the bound forces it, so a row is rewritten about log(n) times, and a bulk load ends with few segments.

/// Share of dead rows, in percent, from which a segment is rewritten.
pub const DEAD_PERCENT_MAX: u64 = 20;

/// One vector name of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorStats {
    /// Bytes of the vectors that are there: what the indexing threshold is compared with.
    pub bytes: u64,
    /// Whether there is an index.
    pub indexed: bool,
}

/// A segment as the policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentStats {
    /// Number of its file.
    pub number: u64,
    /// Rows, dead ones included.
    pub rows: u64,
    /// Rows that a merge would drop: dead in the durable state.
    pub dead: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Its vectors by ordinal.
    pub vectors: Vec<VectorStats>,
    /// Payload indexes that are wanted and not there.
    pub fields_missing: usize,
    /// Whether the clusters of its rows are wanted and not known.
    pub unassigned: bool,
}

impl SegmentStats {
    fn has_index(&self) -> bool {
        self.vectors.iter().any(|vector| vector.indexed)
    }
}

/// Settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Segments to have at most when nothing is left to do, those of the largest size aside. At least 1.
    pub segments_target: usize,
    /// Merged segments are not larger than this many bytes.
    pub segment_bytes_max: u64,
    /// Per vector ordinal, bytes from which a segment gets an index; `None`: never.
    pub index_from_bytes: Vec<Option<u64>>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write one new segment out of these, without their dead rows.
    Merge(Vec<u64>),
    /// Build the missing payload indexes of one segment.
    IndexPayload(u64),
    /// Find the clusters of the rows of one segment.
    AssignClusters(u64),
    /// Build the index of one vector of one segment.
    BuildIndex {
        /// The segment.
        segment: u64,
        /// Ordinal of the vector.
        ordinal: usize,
    },
    /// Nothing is worth doing.
    Nothing,
}

/// The next action.
pub fn next_action(segments: &[SegmentStats], policy: &Policy) -> Action {
    if let Some(numbers) = segments_to_merge(segments, policy) {
        return Action::Merge(numbers);
    }
    let rewrites = segments.iter().filter(|segment| is_mostly_dead(segment));
    let (costly, cheap): (Vec<_>, Vec<_>) = rewrites.partition(|segment| segment.has_index());
    if let Some(segment) = cheap.first() {
        return Action::Merge(vec![segment.number]);
    }
    // Before graphs, which take far longer: the largest segment first, as there.
    let unindexed = segments.iter().filter(|segment| segment.fields_missing > 0);
    if let Some(segment) = unindexed.max_by_key(|segment| (segment.rows, u64::MAX - segment.number)) {
        return Action::IndexPayload(segment.number);
    }
    let unassigned = segments.iter().filter(|segment| segment.unassigned);
    if let Some(segment) = unassigned.max_by_key(|segment| (segment.rows, u64::MAX - segment.number)) {
        return Action::AssignClusters(segment.number);
    }
    if let Some(action) = segment_to_index(segments, policy) {
        return action;
    }
    // Last, because they take as long as their graph, which serves meanwhile, while searches scan what has none.
    costly.first().map_or(Action::Nothing, |segment| Action::Merge(vec![segment.number]))
}

/// Whether a merge builds the graph of one vector before it takes the place of its inputs: when most of the rows have
/// lost nothing yet, having a graph now. With less, as in a load, a graph would only keep the next merge waiting.
///
/// Rows with that vector: those of inputs with a graph, and all of the merged segment.
pub fn keeps_index(rows_indexed: u64, rows_merged: u64) -> bool {
    rows_indexed > 0 && rows_indexed.saturating_mul(2) >= rows_merged
}

/// Whether a vector of this many bytes gets an index.
pub fn wants_index(policy: &Policy, ordinal: usize, bytes: u64) -> bool {
    bytes > 0 && policy.index_from_bytes.get(ordinal).copied().flatten().is_some_and(|from| bytes >= from)
}

fn is_mostly_dead(segment: &SegmentStats) -> bool {
    segment.dead > 0 && segment.dead * 100 >= segment.rows * DEAD_PERCENT_MAX
}

/// The bytes that would be left of a segment.
fn live_bytes(segment: &SegmentStats) -> u64 {
    let live = segment.rows.saturating_sub(segment.dead);
    u64::try_from(u128::from(segment.bytes) * u128::from(live) / u128::from(segment.rows.max(1))).unwrap_or(u64::MAX)
}

fn segments_to_merge(segments: &[SegmentStats], policy: &Policy) -> Option<Vec<u64>> {
    if segments.len() <= policy.segments_target.max(1) {
        return None;
    }
    let mut by_size: Vec<&SegmentStats> = segments.iter().collect();
    by_size.sort_by_key(|segment| (live_bytes(segment), segment.number));
    let mut total = 0u64;
    let mut count = 0;
    for (i, segment) in by_size.iter().enumerate() {
        let bytes = live_bytes(segment);
        if i >= 2 && bytes > total {
            break;
        }
        total = total.saturating_add(bytes);
        if i >= 1 && total > policy.segment_bytes_max {
            break;
        }
        count = i + 1;
    }
    (count >= 2).then(|| by_size[..count].iter().map(|segment| segment.number).collect())
}

/// The largest segment first: it saves searches the most.
fn segment_to_index(segments: &[SegmentStats], policy: &Policy) -> Option<Action> {
    let missing = segments.iter().flat_map(|segment| {
        let vectors = segment.vectors.iter().enumerate();
        let due = vectors.filter(|(ordinal, vector)| !vector.indexed && wants_index(policy, *ordinal, vector.bytes));
        due.map(|(ordinal, vector)| (vector.bytes, segment.number, ordinal))
    });
    let (_, segment, ordinal) = missing.max_by_key(|(bytes, number, ordinal)| (*bytes, u64::MAX - number, *ordinal))?;
    Some(Action::BuildIndex { segment, ordinal })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROW_BYTES: u64 = 100;

    fn policy(target: usize) -> Policy {
        Policy { segments_target: target, segment_bytes_max: u64::MAX, index_from_bytes: vec![Some(50_000)] }
    }

    fn segment(number: u64, rows: u64, dead: u64) -> SegmentStats {
        let vectors = vec![VectorStats { bytes: rows * 64, indexed: false }];
        SegmentStats {
            number,
            rows,
            dead,
            bytes: rows * ROW_BYTES,
            vectors,
            fields_missing: number as usize % 3,
            unassigned: number % 7 == 1,
        }
    }

    /// Does what the policy says until it says nothing. Returns the bytes written.
    fn settle(segments: &mut Vec<SegmentStats>, policy: &Policy) -> u64 {
        let mut written = 0;
        for _ in 0..10_000 {
            match next_action(segments, policy) {
                Action::Nothing => return written,
                Action::Merge(numbers) => {
                    assert!(!numbers.is_empty());
                    let (merged, kept): (Vec<_>, Vec<_>) =
                        segments.drain(..).partition(|s| numbers.contains(&s.number));
                    assert_eq!(merged.len(), numbers.len());
                    assert!(merged.len() > 1 || merged[0].dead > 0, "rewrites an intact segment");
                    *segments = kept;
                    let rows: u64 = merged.iter().map(|s| s.rows - s.dead).sum();
                    let number = 1 + merged.iter().chain(segments.iter()).map(|s| s.number).max().unwrap();
                    if rows > 0 {
                        segments.push(segment(number, rows, 0));
                        written += rows * ROW_BYTES;
                    }
                }
                Action::IndexPayload(segment) => {
                    let found = segments.iter_mut().find(|s| s.number == segment).unwrap();
                    assert!(std::mem::take(&mut found.fields_missing) > 0);
                }
                Action::AssignClusters(segment) => {
                    let found = segments.iter_mut().find(|s| s.number == segment).unwrap();
                    assert!(std::mem::take(&mut found.unassigned));
                }
                Action::BuildIndex { segment, ordinal } => {
                    let found = segments.iter_mut().find(|s| s.number == segment).unwrap();
                    assert!(!found.vectors[ordinal].indexed && found.vectors[ordinal].bytes >= 50_000);
                    found.vectors[ordinal].indexed = true;
                }
            }
        }
        panic!("does not end: {segments:?}");
    }

    proptest! {
        #[test]
        fn settles_within_its_bounds(
            sizes in prop::collection::vec((1u64..5_000, 0u64..100), 0..40),
            target in 1usize..8,
        ) {
            let policy = policy(target);
            let mut segments: Vec<SegmentStats> = Vec::new();
            for (i, (rows, percent)) in sizes.into_iter().enumerate() {
                segments.push(segment(i as u64, rows, rows * percent / 100));
            }
            settle(&mut segments, &policy);
            prop_assert!(segments.len() <= target);
            for segment in &segments {
                prop_assert_eq!((segment.fields_missing, segment.unassigned), (0, false));
                prop_assert!(segment.dead * 100 < segment.rows * DEAD_PERCENT_MAX || segment.dead == 0);
                let vector = segment.vectors[0];
                prop_assert_eq!(vector.indexed, vector.bytes >= 50_000);
            }
        }

        #[test]
        fn a_size_limit_is_kept(sizes in prop::collection::vec(1u64..5_000, 0..40)) {
            let mut segments: Vec<SegmentStats> =
                sizes.iter().enumerate().map(|(i, rows)| segment(i as u64, *rows, 0)).collect();
            let policy = Policy { segment_bytes_max: 6_000 * ROW_BYTES, ..policy(4) };
            settle(&mut segments, &policy);
            prop_assert!(segments.iter().all(|s| s.bytes <= 6_000 * ROW_BYTES));
            // Any two of those above the target do not fit together.
            let total: u64 = sizes.iter().sum();
            prop_assert!(segments.len() as u64 <= 4 + 2 * total / 6_000 + 1);
        }
    }

    #[test]
    fn a_long_load_rewrites_each_row_a_few_times() {
        let policy = policy(4);
        let mut segments = Vec::new();
        let mut written = 0;
        for number in 0..1_000 {
            segments.push(segment(1_000_000 + number * 1_000, 100, 0));
            written += settle(&mut segments, &policy);
        }
        let loaded = 1_000 * 100 * ROW_BYTES;
        assert!(written < 20 * loaded, "each byte was written {} times", written / loaded);
    }

    #[test]
    fn what_has_a_graph_is_rewritten_after_what_has_none_got_one() {
        let with_graph = |number, rows, dead| {
            let vectors = vec![VectorStats { bytes: rows * 64, indexed: true }];
            SegmentStats { vectors, fields_missing: 0, unassigned: false, ..segment(number, rows, dead) }
        };
        let build = Action::BuildIndex { segment: 6, ordinal: 0 };
        let mut segments = vec![with_graph(3, 9_000, 3_000), segment(6, 1_000, 0), segment(9, 5_000, 2_000)];
        assert_eq!(next_action(&segments, &policy(4)), Action::Merge(vec![9]));
        segments.pop();
        assert_eq!(next_action(&segments, &policy(4)), build);
        segments.pop();
        assert_eq!(next_action(&segments, &policy(4)), Action::Merge(vec![3]));
        assert!(keeps_index(3_000, 6_000) && !keeps_index(2_999, 6_000) && !keeps_index(0, 0));
    }

    #[test]
    fn a_policy_without_indexes_builds_none() {
        let policy = Policy { index_from_bytes: vec![None], ..policy(4) };
        assert_eq!(next_action(&[segment(3, 100_000, 0)], &policy), Action::Nothing);
    }
}
