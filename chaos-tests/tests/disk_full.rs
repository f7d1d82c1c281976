//! A full disk makes the server read-only, in plain words; with room again it writes again, without a restart.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use vicinal_chaos_tests::{Answer, Rest, Server, ServerOptions, data_dir, skip};

const MIB: usize = 1 << 20;
/// Size of the file system.
const DISK: usize = 192 * MIB;
/// Size of the file that takes the room away and gives it back.
const BALLAST: usize = 64 * MIB;
/// Longest wait for the server to notice that there is room again.
const HEAL_WAIT: Duration = Duration::from_secs(15);
/// Dimension: a point is about 4 KiB.
const DIM: usize = 1_024;

/// A small file system in memory.
struct Disk {
    dir: TempDir,
}

impl Disk {
    /// `None` when this process may not mount.
    fn mount() -> Option<Disk> {
        let dir = data_dir();
        let size = format!("size={DISK}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Disk { dir })
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.dir.path().join("ballast")
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Takes `bytes` away, or all that is left.
    fn fill(&self, bytes: usize) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        let block = vec![1; MIB / 4];
        for _ in 0..bytes / block.len() {
            if file.write_all(&block).is_err() {
                break;
            }
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

fn batch(from: u64) -> Value {
    let points: Vec<_> = (from..from + 50)
        .map(|id| {
            // A prime, so that no two points of the test share a vector.
            let vector: Vec<u64> = (0..DIM as u64).map(|i| (id * 31 + i * 17) % 65_521).collect();
            json!({"id": id, "vector": vector, "payload": {"n": id}})
        })
        .collect();
    json!({"points": points})
}

async fn write(rest: &Rest, from: u64) -> Answer {
    rest.put("/collections/full/points?wait=true", batch(from)).await
}

/// Writes until the server refuses; returns the number of points acknowledged and the refusal.
async fn write_until_refused(rest: &Rest) -> (u64, Answer) {
    let mut acknowledged = 0;
    loop {
        let answer = write(rest, acknowledged).await;
        match answer.status {
            200 => acknowledged += 50,
            // Sealing is behind: no sign of a full disk yet.
            429 => tokio::time::sleep(Duration::from_millis(50)).await,
            _ => return (acknowledged, answer),
        }
        assert!((acknowledged as usize) < 10 * DISK / (4 * DIM), "the disk never gets full");
    }
}

async fn assert_readable(rest: &Rest, acknowledged: u64) {
    let count = rest.count("full").await;
    // The refused batch may be there in part.
    assert!((acknowledged..=acknowledged + 50).contains(&count), "{acknowledged} acknowledged, {count} there");
    let last = rest.get(&format!("/collections/full/points/{}", acknowledged - 1)).await.result();
    assert_eq!(last["payload"]["n"], json!(acknowledged - 1));
    let query = json!({"query": last["vector"], "limit": 1, "params": {"exact": true}});
    let found = rest.post("/collections/full/points/query", query).await.result();
    assert_eq!(found["points"][0]["id"], json!(acknowledged - 1));
}

async fn assert_heals(rest: &Rest, from: u64) {
    let freed = Instant::now();
    loop {
        let answer = write(rest, from).await;
        if answer.status == 200 {
            break;
        }
        assert!(freed.elapsed() < HEAL_WAIT, "there is room, but: {} {}", answer.status, answer.body);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn start(data: &Path, reserve: usize) -> Server {
    let reserve = reserve.to_string();
    let options = ServerOptions::new(data).args(&["--nodes", "1", "--disk-reserve-bytes", &reserve]);
    Server::start(options.args(&["--seal-bytes", "4194304"])).await.unwrap()
}

fn create_body() -> Value {
    json!({"vectors": {"size": DIM, "distance": "Euclid"}, "shard_number": 2})
}

async fn scenario(disk: &Disk, reserve: usize) {
    let mut server = start(&disk.data(), reserve).await;
    let rest = server.rest();
    rest.put("/collections/full", create_body()).await.result();
    disk.fill(BALLAST);

    let (acknowledged, refusal) = write_until_refused(&rest).await;
    assert_eq!(refusal.status, 503, "{}", refusal.body);
    assert!(
        acknowledged > 0 && refusal.error().contains("disk") && refusal.error().contains("is full"),
        "{}",
        refusal.body
    );
    for _ in 0..3 {
        assert_ne!(write(&rest, acknowledged).await.status, 200);
    }
    if reserve == 0 {
        // Metadata needs room too, and must not be broken by having none.
        let refusal = rest.put("/collections/second", create_body()).await;
        assert!(refusal.status == 503 && refusal.error().contains("disk is full"), "{}", refusal.body);
    }
    assert!(server.is_alive(), "{:?}", server.log());
    assert_readable(&rest, acknowledged).await;
    let told = server.log().iter().filter(|line| line.contains("disk is full")).count();
    assert!((1..20).contains(&told), "the log says so {told} times: once per change is right");

    disk.free();
    assert_heals(&rest, acknowledged).await;
    rest.put("/collections/second", create_body()).await.result();
    // What it says is true also for the next process.
    server.kill();
    let server = start(&disk.data(), reserve).await;
    assert_readable(&server.rest(), acknowledged + 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_stop_at_the_reserve_and_go_on_when_there_is_room() {
    match Disk::mount() {
        Some(disk) => scenario(&disk, 16 * MIB).await,
        None => skip("disk_full: reserve", "mounting a small file system needs root"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_a_single_byte_loses_nothing() {
    match Disk::mount() {
        // Without a reserve it is the log's own write that fails.
        Some(disk) => scenario(&disk, 0).await,
        None => skip("disk_full: no byte left", "mounting a small file system needs root"),
    }
}
