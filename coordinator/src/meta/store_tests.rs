//! Both stores: what was committed is there again, whatever happens in between.

use std::path::Path;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use proptest::prelude::*;
use vicinal_common::disk::{Disk, Fault, FaultyDisk, RealDisk};

use super::raft::{MetaTypes, StateMachine};
use super::raft_log::LogStore;
use super::writer::Writer;
use super::*;

fn change() -> impl Strategy<Value = Change> {
    let bytes = || (any::<u8>(), prop_oneof![0_usize..30, 4_090_usize..4_100, 9_000_usize..9_010]);
    let bytes = move || bytes().prop_map(|(byte, len)| vec![byte; len]);
    prop_oneof![
        4 => (0_u64..20, bytes()).prop_map(|(index, entry)| Change::Put { index, entry }),
        1 => (0_u64..20).prop_map(Change::TruncateFrom),
        1 => (0_u64..20).prop_map(Change::PurgeThrough),
        2 => (prop::sample::select(Record::ALL.to_vec()), bytes()).prop_map(|(record, value)| Change::Set(record, value)),
    ]
}

fn commits() -> impl Strategy<Value = Vec<Vec<Change>>> {
    prop::collection::vec(prop::collection::vec(change(), 1..8), 1..12)
}

fn check_reopened(commits: &[Vec<Change>], open: &dyn Fn() -> Box<dyn MetaStore>) {
    let mut expected = Stored::default();
    for commit in commits {
        let mut store = open();
        assert_eq!(store.load().unwrap(), expected);
        store.commit(commit).unwrap();
        commit.iter().for_each(|change| expected.apply(change.clone()));
    }
    assert_eq!(open().load().unwrap(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn sled_keeps_what_was_committed(commits in commits()) {
        let dir = tempfile::tempdir().unwrap();
        check_reopened(&commits, &|| Box::new(SledStore::open(dir.path()).unwrap()));
    }

    #[test]
    fn disk_keeps_what_was_committed(commits in commits()) {
        let dir = tempfile::tempdir().unwrap();
        check_reopened(&commits, &|| Box::new(DiskStore::open(Arc::new(RealDisk), dir.path()).unwrap()));
    }

    #[test]
    fn power_cut_anywhere_loses_nothing_confirmed(commits in commits(), at in 0.0_f64..1.0, seed in any::<u64>()) {
        let dir = Path::new("/meta");
        // The first run counts the operations, the second one is cut at one of them.
        let mut operations = u64::MAX;
        for _ in 0..2 {
            let disk = FaultyDisk::new(seed);
            disk.inject(Fault::Cut { operations }).unwrap();
            let (mut confirmed, mut begun) = (Stored::default(), None);
            let run = || -> std::io::Result<()> {
                let mut store = DiskStore::open(Arc::new(disk.clone()), dir)?;
                store.load()?;
                for commit in &commits {
                    let mut next = confirmed.clone();
                    commit.iter().for_each(|change| next.apply(change.clone()));
                    begun = Some(next.clone());
                    store.commit(commit)?;
                    confirmed = next;
                }
                Ok(())
            };
            let ended = { let mut run = run; run() };
            prop_assert_eq!(ended.is_err(), disk.is_off());
            disk.reboot();
            // A second cut while it recovers, then again in peace.
            disk.inject(Fault::Cut { operations: disk.operations() + 2 }).unwrap();
            let _ = DiskStore::open(Arc::new(disk.clone()), dir).and_then(|mut store| store.load());
            disk.reboot();
            let found = DiskStore::open(Arc::new(disk.clone()), dir).and_then(|mut store| store.load()).unwrap();
            prop_assert!(found == confirmed || Some(&found) == begun.as_ref(), "neither before nor after the last commit");
            operations = (disk.operations() as f64 * at) as u64;
        }
    }
}

#[test]
fn long_journal_becomes_an_image() {
    let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(1));
    let dir = Path::new("/meta");
    let mut store = DiskStore::open(disk.clone(), dir).unwrap();
    let mut expected = store.load().unwrap();
    for index in 0..12 {
        let change = Change::Put { index, entry: vec![index as u8; 1024 * 1024] };
        store.commit(std::slice::from_ref(&change)).unwrap();
        expected.apply(change);
    }
    assert_eq!(disk.list(dir).unwrap(), ["image", "journal-3"]);
    assert_eq!(DiskStore::open(disk, dir).unwrap().load().unwrap(), expected);
}

#[test]
fn damage_within_the_journal_is_refused() {
    let disk = FaultyDisk::new(1);
    let dir = Path::new("/meta");
    let mut store = DiskStore::open(Arc::new(disk.clone()), dir).unwrap();
    store.load().unwrap();
    for index in 0..3 {
        store.commit(&[Change::Put { index, entry: vec![7; 100] }]).unwrap();
    }
    disk.inject(Fault::BitFlip { path: dir.join("journal-0"), offset: 60, bit: 3 }).unwrap();
    let error = DiskStore::open(Arc::new(disk), dir).unwrap().load().unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
}

/// A state with a collection that is routed by cluster, in the middle of a change of maps.
fn changing_maps() -> MetaState {
    use vicinal_common::collection::{CollectionSchema, HnswConfig, VectorSchema};
    use vicinal_common::ids::{CollectionId, Epoch, LogIndex, MapDigest, MapVersion, NodeId, ShardId};
    use vicinal_common::metric::Metric;
    use vicinal_common::publish::MapRef;
    use vicinal_common::ring::TokenTable;
    let shard = |id| Shard { id: ShardId(id), replicas: vec![NodeId(1)], learners: Vec::new() };
    let map = |version: u64, shard: u64| MapRef {
        version: MapVersion(version),
        vector: "v".into(),
        digest: MapDigest(version.into()),
        bytes: 9,
        shards: vec![ShardId(shard)],
    };
    let settings = ClusterSettings {
        vector: "v".into(),
        search_shards: 2,
        copies: 0.25,
        recall_target: 0.5,
        from_points: 7,
        balance: true,
    };
    let cluster = ClusterRouting {
        shards: vec![shard(1), shard(2)],
        serving: Some(ServedMap { map: map(1, 1), floors: vec![LogIndex(3)] }),
        next: Some(map(2, 2)),
        ..ClusterRouting::new(settings, MapVersion(2))
    };
    let id = CollectionId(uuid::Uuid::from_u128(1));
    let collection = Collection {
        id,
        name: "c".into(),
        schema: CollectionSchema {
            vectors: [("v".to_owned(), VectorSchema::dense(4, Metric::Dot))].into(),
            hnsw: HnswConfig::default(),
            indexing_threshold_kib: 1,
        },
        state: CollectionState::Active,
        epoch: Epoch(1),
        shards: vec![shard(0)],
        tokens: TokenTable::propose(&[ShardId(0)]).unwrap(),
        routing: Routing::Cluster(Box::new(cluster)),
        replication_factor: 1,
        write_consistency_factor: 1,
        config_json: "{}".into(),
        tuning: Default::default(),
        strict: StrictMode::default(),
        clustering: None,
        clustering_wanted: None,
        created_ms: 1,
    };
    MetaState {
        collections: [(id, Arc::new(collection))].into(),
        names: [("c".to_owned(), id)].into(),
        next_shard: 3,
        newest_map: MapVersion(2),
        ..MetaState::default()
    }
}

#[test]
fn states_are_stored_as_ever() {
    let state = changing_maps();
    let bytes = super::store::encode(&state).unwrap();
    // Another digest is another stored form, which needs another version.
    assert_eq!((bytes[0], bytes.len(), xxhash_rust::xxh3::xxh3_64(&bytes)), (8, 4276, 13_214_384_863_098_914_838));
    assert_eq!(super::store::decode::<MetaState>("the state", &bytes).unwrap(), state);
    let mut older = bytes[..bytes.len() - 4].to_vec();
    older[0] = 7;
    older.extend(crc32fast::hash(&older).to_le_bytes());
    let error = super::store::decode::<MetaState>("the state", &older).unwrap_err();
    assert!(error.to_string().contains("the state has version 7, this program knows 8"), "{error}");
}

#[test]
fn sled_in_use_is_refused_in_plain_words() {
    let dir = tempfile::tempdir().unwrap();
    let _held = SledStore::open(dir.path()).unwrap();
    let error = SledStore::open(dir.path()).err().expect("two processes must not share it");
    assert!(error.to_string().contains("stop it first"), "{error}");
}

/// Builds a store for openraft's own suite of storage tests.
struct Builder {
    sled: bool,
}

impl StoreBuilder<MetaTypes, LogStore, StateMachine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<MetaTypes>> {
        let dir = tempfile::tempdir().unwrap();
        let mut store: Box<dyn MetaStore> = match self.sled {
            true => Box::new(SledStore::open(dir.path()).unwrap()),
            false => Box::new(DiskStore::open(Arc::new(FaultyDisk::new(1)), Path::new("/meta")).unwrap()),
        };
        let stored = store.load().unwrap();
        let writer = Arc::new(Writer::start(store).unwrap());
        let log = LogStore::open(&stored, writer.clone()).unwrap();
        let (machine, _) = StateMachine::open(&stored, writer).unwrap();
        Ok((dir, log, machine))
    }
}

#[test]
fn openraft_suite_on_sled() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Suite::test_all(Builder { sled: true })).unwrap();
}

#[test]
fn openraft_suite_on_disk() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Suite::test_all(Builder { sled: false })).unwrap();
}
