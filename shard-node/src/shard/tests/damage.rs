//! Damage in every kind of byte of every file that a shard keeps: it is never opened, and the error says where it is.
//!
//! The regions of a file are found by reading docs/formats anew, not with the code under test.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use vicinal_common::collection::HnswConfig;
use vicinal_common::disk::{Disk, FaultyDisk};
use vicinal_common::error::Error;
use vicinal_common::ids::{LogIndex, MapDigest, MapVersion};
use vicinal_common::metric::Metric;
use vicinal_common::publish::{Feed, FeedChange, MapRef};

use super::super::{Shard, ShardEnv};
use super::harness::{DIR, Model, Work, env, spec_of};
use crate::manifest::Manifest;

/// Bytes of one kind, and what an error must say when one of them is wrong.
struct Region {
    kind: String,
    bytes: Range<usize>,
    place: String,
}

/// Adds regions of the given lengths, one after the other from `start` on.
fn add(regions: &mut Vec<Region>, start: usize, place: &str, fields: &[(&str, usize)]) {
    let mut at = start;
    for (kind, length) in fields {
        regions.push(Region { kind: format!("{kind} of {place}"), bytes: at..at + length, place: place.into() });
        at += length;
    }
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn u64_at(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

/// docs/formats/segment.md
fn regions_of_segment(bytes: &[u8]) -> Vec<Region> {
    let mut regions = Vec::new();
    let header = [("magic", 8), ("version", 4), ("vectors", 4), ("rows", 8), ("nums", 8), ("zeros", 28), ("crc", 4)];
    add(&mut regions, 0, "header at offset 0", &header);
    let footer = bytes.len() - 32;
    let (toc, entries) = (u64_at(bytes, footer), u32_at(bytes, footer + 8));
    for entry in 0..entries {
        let at = toc + 32 * entry;
        let (kind, ordinal) = (u32_at(bytes, at), u32_at(bytes, at + 4));
        let (start, length) = (u64_at(bytes, at + 8), u64_at(bytes, at + 16));
        let names = [
            "Nums",
            "Uuids",
            "Versions",
            "Present",
            "Vectors",
            "PayloadOffsets",
            "Payloads",
            "Starts",
            "Indices",
            "PostingDims",
            "PostingStarts",
            "PostingRows",
            "PostingValues",
            "PostingMaxima",
            "PostingMinima",
        ];
        let place = format!("section {} {ordinal} at offset {start}", names[kind - 1]);
        add(&mut regions, start, &place, &[("content", length), ("padding", length.next_multiple_of(64) - length)]);
        let fields = [("kind", 4), ("ordinal", 4), ("offset", 8), ("bytes", 8), ("crc", 4), ("dim", 4)];
        add(&mut regions, at, &format!("table of contents at offset {toc}"), &fields);
    }
    let fields = [("toc offset", 8), ("entries", 4), ("toc crc", 4), ("magic", 8), ("version", 4), ("crc", 4)];
    add(&mut regions, footer, &format!("footer at offset {footer}"), &fields);
    regions
}

/// docs/formats/hnsw.md
fn regions_of_graph(bytes: &[u8]) -> Vec<Region> {
    let mut regions = Vec::new();
    let header = u64_at(bytes, 128);
    let fields = [
        ("magic", 8),
        ("version", 4),
        ("metric", 4),
        ("rows", 8),
        ("seed", 8),
        ("dim", 8),
        ("m", 4),
        ("ef_construction", 4),
        ("layers", 4),
        ("entry", 4),
        ("over", 4),
        ("step", 4),
        ("layer_nodes", 64),
        ("sections", header - 132),
        ("crc", 4),
    ];
    add(&mut regions, 0, "header at offset 0", &fields);
    for (i, name) in ["base", "upper_rows", "upper", "twins", "mean", "codes", "terms"].into_iter().enumerate() {
        let (start, length) = (u64_at(bytes, 128 + 24 * i), u64_at(bytes, 136 + 24 * i));
        let place = format!("section {name} at offset {start}");
        add(&mut regions, start, &place, &[("content", length)]);
        add(&mut regions, start + length, "padding", &[(name, length.next_multiple_of(64) - length)]);
    }
    regions
}

/// docs/formats/manifest.md, of both files.
fn regions_of_frame(bytes: &[u8]) -> Vec<Region> {
    let mut regions = Vec::new();
    add(&mut regions, 0, "header at offset 0", &[("magic", 8)]);
    let checked = format!("checksum of offsets 0 to {}", bytes.len());
    add(&mut regions, 8, &checked, &[("version", 4), ("crc", 4)]);
    add(&mut regions, 16, &format!("ends at offset {}", bytes.len()), &[("body length", 8)]);
    add(&mut regions, 24, &checked, &[("body", bytes.len() - 24)]);
    regions
}

fn regions_of(name: &str, bytes: &[u8]) -> Vec<Region> {
    match name.rsplit('.').next() {
        Some("seg") => regions_of_segment(bytes),
        Some("hnsw") => regions_of_graph(bytes),
        _ => regions_of_frame(bytes),
    }
}

/// A closed shard with segments, graphs over vectors and over codes, dead rows and remembered requests.
struct Scene {
    disk: FaultyDisk,
    env: ShardEnv,
    model: Model,
    files: Vec<(String, Vec<u8>)>,
}

fn scene() -> Scene {
    let vectors = [(48, Metric::Euclid), (14, Metric::Dot)];
    let spec = spec_of(vectors, HnswConfig { m: 4, ef_construction: 16 }, 1);
    let disk = FaultyDisk::new(1);
    let mut env = env(disk.clone());
    env.options.seal_bytes = 40_000;
    let shard = Shard::create(&env, Path::new(DIR), &spec).unwrap();
    let mut work = Work::of(12, 300, vectors);
    let mut model = Model::of(spec);
    for _ in 0..4 {
        for _ in 0..40 {
            work.entry(&mut model);
        }
        model.replay(&shard).unwrap();
        shard.flush_blocking().unwrap();
    }
    while shard.maintain_once().unwrap() {}
    shard.close();
    drop(shard);
    let names = disk.list(Path::new(DIR)).unwrap();
    let files = names.into_iter().map(|name| (name.clone(), disk.read(&Path::new(DIR).join(&name)).unwrap()));
    let files = files.collect();
    Scene { disk, env, model, files }
}

impl Scene {
    fn put(&self, name: &str, bytes: &[u8]) {
        let path = Path::new(DIR).join(name);
        self.disk.remove(&path).unwrap();
        self.disk.create(&path).unwrap().write_at(0, bytes).unwrap();
    }

    /// What opening says with this content in a file; nothing else may have changed.
    fn open_with(&self, name: &str, bytes: &[u8]) -> Option<Error> {
        self.put(name, bytes);
        Shard::open(&self.env, Path::new(DIR)).err()
    }

    fn check_corrupt(&self, name: &str, bytes: &[u8], places: &[&str], what: &str) {
        let error = self.open_with(name, bytes);
        let Some(Error::Corrupt(text)) = &error else { panic!("{name}: {what}: {error:?}") };
        assert!(text.starts_with(name), "{name}: {what}: {text}");
        assert!(places.iter().any(|place| text.contains(place)), "{name}: {what}: {text}, not {places:?}");
    }

    fn files_of<'a>(&'a self, ending: &'a str) -> impl Iterator<Item = &'a (String, Vec<u8>)> {
        self.files.iter().filter(move |(name, _)| name.ends_with(ending))
    }

    fn check_intact(&self) {
        let shard = Shard::open(&self.env, Path::new(DIR)).unwrap();
        self.model.check(&shard);
    }
}

#[test]
fn a_damaged_byte_of_any_kind_is_named_with_its_place() {
    let scene = scene();
    assert!(scene.files_of(".seg").count() > 1, "{:?}", scene.files.len());
    // Graphs over vectors and over codes; their header tells the dimension.
    let dims: BTreeSet<usize> = scene.files_of(".hnsw").map(|(_, bytes)| u64_at(bytes, 32)).collect();
    assert_eq!(dims, [14, 48].into());
    let mut cases = 0;
    for (name, bytes) in &scene.files {
        let regions = regions_of(name, bytes);
        let mut known = vec![false; bytes.len()];
        for region in regions.iter().filter(|region| !region.bytes.is_empty()) {
            known[region.bytes.clone()].fill(true);
            let Range { start, end } = region.bytes;
            let mut offsets = vec![start, start + (end - start) / 2, end - 1];
            offsets.dedup();
            for (offset, mask) in offsets.into_iter().flat_map(|at| [(at, 1 << (at % 8)), (at, 0xff)]) {
                let mut damaged = bytes.clone();
                damaged[offset] ^= mask;
                scene.check_corrupt(name, &damaged, &[&region.place], &format!("{} at {offset}", region.kind));
                cases += 1;
            }
        }
        assert!(known.into_iter().all(|known| known), "{name} has bytes of no kind");
        scene.put(name, bytes);
    }
    assert!(cases > 1_000, "{cases} cases");
    scene.check_intact();
}

#[test]
fn a_file_that_is_cut_off_or_too_long_is_named_with_its_end() {
    let scene = scene();
    for (name, bytes) in &scene.files {
        let regions = regions_of(name, bytes);
        let ends = regions.iter().flat_map(|region| [region.bytes.start, region.bytes.start + region.bytes.len() / 2]);
        let mut lengths: Vec<usize> = ends.chain([0, 1, bytes.len() - 1]).filter(|end| *end < bytes.len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        for length in lengths {
            let place = format!("ends at offset {length}");
            scene.check_corrupt(name, &bytes[..length], &[&place], "cut off");
        }
        for more in [1, 64, 5_000] {
            let mut longer = bytes.clone();
            longer.resize(bytes.len() + more, 0);
            scene.check_corrupt(name, &longer, &[&format!("ends at offset {}", longer.len())], "too long");
        }
        scene.put(name, bytes);
    }
    scene.check_intact();
}

/// Sets all checksums of a segment right.
fn reseal(bytes: &mut [u8]) {
    let footer = bytes.len() - 32;
    let put = |bytes: &mut [u8], at: usize, of: Range<usize>| {
        let crc = crc32fast::hash(&bytes[of]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    };
    put(bytes, 60, 0..60);
    let toc = u64_at(bytes, footer);
    if toc <= footer {
        for at in (toc..footer).step_by(32).filter(|at| at + 32 <= footer) {
            let start = u64_at(bytes, at + 8);
            let end = start.checked_add(u64_at(bytes, at + 16)).and_then(|end| end.checked_next_multiple_of(64));
            if let Some(end) = end.filter(|end| *end <= toc) {
                put(bytes, at + 24, start..end);
            }
        }
        put(bytes, footer + 12, toc..footer);
    }
    put(bytes, footer + 28, footer..footer + 28);
}

/// A program that writes nonsense gets its checksums right: what the numbers say is checked too.
#[test]
fn a_wrong_number_under_right_checksums_is_no_segment() {
    let scene = scene();
    let (name, bytes) = scene.files_of(".seg").next().unwrap();
    let (_, manifest) = scene.files_of("MANIFEST").next().unwrap();
    let manifest = Manifest::decode(manifest).unwrap();
    let with_checksum = |crc: u32| {
        let mut manifest = manifest.clone();
        let record = manifest.segments.iter_mut().find(|record| format!("{:06}.seg", record.number) == *name);
        record.unwrap().crc = crc;
        scene.put("MANIFEST", &manifest.encode().unwrap());
    };
    with_checksum(crc32fast::hash(bytes));
    scene.check_intact();
    let numbers = regions_of_segment(bytes).into_iter().filter(|region| {
        let is_number =
            ["vectors", "rows", "nums", "kind", "ordinal", "offset", "bytes", "dim", "toc offset", "entries"];
        is_number.iter().any(|kind| region.kind.starts_with(&format!("{kind} of")))
    });
    let mut cases = 0;
    for region in numbers {
        let old = bytes[region.bytes.clone()].to_vec();
        let small = |change: i64| {
            let mut value = [0; 8];
            value[..old.len()].copy_from_slice(&old);
            i64::from_le_bytes(value).wrapping_add(change).to_le_bytes()[..old.len()].to_vec()
        };
        for new in [small(1), small(-1), small(64), small(-64), vec![0; old.len()], vec![0xff; old.len()]] {
            let mut wrong = bytes.clone();
            wrong[region.bytes.clone()].copy_from_slice(&new);
            if wrong == *bytes {
                continue;
            }
            reseal(&mut wrong);
            with_checksum(crc32fast::hash(&wrong));
            scene.check_corrupt(name, &wrong, &[""], &format!("{} is {new:?}", region.kind));
            cases += 1;
        }
    }
    assert!(cases > 200, "{cases} cases");
    // Ids and offsets of payloads in another order.
    for section in ["section Nums", "section Uuids", "section PayloadOffsets"] {
        let mut wrong = bytes.clone();
        let of_section = |region: &Region| region.kind.starts_with("content") && region.place.starts_with(section);
        let content = regions_of_segment(bytes).into_iter().find(of_section).unwrap().bytes;
        let width = if section == "section Uuids" { 16 } else { 8 };
        let pairs = wrong[content].chunks_exact_mut(2 * width).map(|pair| pair.split_at_mut(width));
        // Those of empty payloads are equal.
        let (first, second) = pairs.into_iter().find(|(first, second)| first != second).unwrap();
        first.swap_with_slice(second);
        reseal(&mut wrong);
        with_checksum(crc32fast::hash(&wrong));
        scene.check_corrupt(name, &wrong, &["sorted"], section);
    }
}

#[test]
fn a_manifest_that_contradicts_itself_or_its_files_is_refused() {
    let scene = scene();
    let (name, bytes) = scene.files_of("MANIFEST").next().unwrap();
    let good = Manifest::decode(bytes).unwrap();
    type Change = fn(&mut Manifest);
    let begin = |version: u64| {
        FeedChange::Begin(MapRef {
            version: MapVersion(version),
            digest: MapDigest(1),
            bytes: 1,
            shards: Vec::new(),
            vector: String::new(),
        })
    };
    let mut fed = good.clone();
    fed.feed = Feed::default();
    fed.feed.change(LogIndex(1), &begin(1));
    fed.feed.change(LogIndex(2), &begin(2));
    assert_eq!(Manifest::decode(&fed.encode().unwrap()), Ok(fed.clone()));
    let changes: [(&str, Change); 14] = [
        ("spec_digest", |manifest| manifest.spec_digest ^= 1),
        ("beyond its next one", |manifest| manifest.next_file = 1),
        ("dead row", |manifest| manifest.segments[0].dead = vec![u32::MAX]),
        ("not ascending", |manifest| manifest.segments[0].dead = vec![1, 0]),
        ("rows, the manifest says", |manifest| manifest.segments[0].rows += 1),
        ("ends at offset", |manifest| manifest.segments[0].bytes += 1),
        ("not the file", |manifest| manifest.segments[0].crc ^= 1),
        ("no vector of the collection", |manifest| manifest.segments[0].indexes[0].ordinal = 2),
        ("the file is missing", |manifest| manifest.segments[0].number -= 1),
        ("maps are not ascending", |manifest| manifest.feed.targets.swap(0, 1)),
        ("maps are not ascending", |manifest| manifest.feed.targets[1].since = LogIndex(1)),
        ("maps are not ascending", |manifest| manifest.feed.newest = MapVersion(1)),
        ("positions beyond", |manifest| manifest.feed.published = LogIndex(1 << 40)),
        ("positions beyond", |manifest| manifest.feed.targets[1].since = LogIndex(1 << 40)),
    ];
    for (place, change) in changes {
        let mut wrong = fed.clone();
        change(&mut wrong);
        let error = scene.open_with(name, &wrong.encode().unwrap());
        let Some(Error::Corrupt(text)) = &error else { panic!("{place}: {error:?}") };
        assert!(text.contains(place), "{place}: {text}");
        assert!(text.starts_with(name) || text.contains(".seg: "), "{text}");
        // Files that the wrong one did not name are gone.
        scene.files.iter().for_each(|(name, bytes)| {
            let _ = scene.disk.create(&Path::new(DIR).join(name));
            scene.put(name, bytes);
        });
    }
    scene.check_intact();
}
