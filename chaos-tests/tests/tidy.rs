//! Rules of the source tree that no compiler checks: who may use whom, sizes, names, leftovers.

mod tidy {
    pub(super) mod tree;
}

use tidy::tree::{SourceFile, Tree};

/// Longest Rust file, in lines, tests included: past this it is two things.
const LINES_MAX: usize = 500;
/// The visible top level; dot-files may be added.
const TOP_LEVEL: [&str; 13] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "src",
    "coordinator",
    "shard-node",
    "common",
    "deploy",
    "chaos-tests",
    "docs",
    "target",
];
/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 4] = ["utils.rs", "types.rs", "helpers.rs", "misc.rs"];
/// Files that only compute: they import neither the runtime nor the disk.
const PURE: [&str; 6] = [
    "coordinator/src/meta/state.rs",
    "coordinator/src/meta/command.rs",
    "coordinator/src/placement/plan.rs",
    "common/src/ring.rs",
    "common/src/topk.rs",
    "shard-node/src/optimizer.rs",
];

/// Fails with all offences at once, one per line.
fn none(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

/// Offending lines of the code (not of comments) of the files that `chosen` picks.
fn lines_with(chosen: impl Fn(&SourceFile) -> bool, forbidden: &[&str], why: &str) -> Vec<String> {
    let tree = Tree::load();
    let mut offences = Vec::new();
    for file in tree.rust_files().filter(|file| chosen(file)) {
        for (number, line) in file.code_lines() {
            if forbidden.iter().any(|part| line.contains(part)) {
                offences.push(format!("{}:{number}: {why}: {}", file.path, line.trim()));
            }
        }
    }
    offences
}

#[test]
fn crates_use_only_what_is_below_them() {
    let uses = |dir: &'static str, crates: &'static [&'static str]| {
        let names = crates.join(" or ");
        lines_with(move |file| file.path.starts_with(dir), crates, &format!("{dir} must not use {names}"))
    };
    let mut offences = uses("common/", &["vicinal_shard_node", "vicinal_coordinator", "vicinal_chaos_tests"]);
    offences.extend(uses("common/", &["vicinal_index", "vicinal_routing"]));
    offences.extend(uses("shard-node/", &["vicinal_coordinator", "vicinal_chaos_tests"]));
    offences.extend(uses("shard-node/index/", &["vicinal_shard_node", "vicinal_routing"]));
    offences.extend(uses("coordinator/", &["vicinal_shard_node", "vicinal_chaos_tests"]));
    // Beside the index: it may use that and common, and knows nothing of the coordinator that uses it. The coordinator
    // itself searches nothing.
    offences.extend(uses("coordinator/routing/", &["vicinal_coordinator"]));
    offences.extend(uses("coordinator/src/", &["vicinal_index"]));
    offences.extend(uses("src/", &["vicinal_chaos_tests"]));
    let tree = Tree::load();
    for (manifest, crates) in [
        ("common/Cargo.toml", &["vicinal-shard-node", "vicinal-coordinator", "vicinal-index", "vicinal-routing"][..]),
        ("shard-node/Cargo.toml", &["vicinal-coordinator"]),
        ("shard-node/index/Cargo.toml", &["vicinal-coordinator", "vicinal-shard-node", "vicinal-routing"]),
        ("coordinator/Cargo.toml", &["vicinal-shard-node", "vicinal-index"]),
        ("coordinator/routing/Cargo.toml", &["vicinal-shard-node", "vicinal-coordinator"]),
    ] {
        let text = &tree.file(manifest).text;
        offences
            .extend(crates.iter().filter(|name| text.contains(**name)).map(|name| format!("{manifest} names {name}")));
    }
    none(offences);
}

#[test]
fn consensus_stays_behind_its_three_doors() {
    let doors = ["common/src/raft", "shard-node/src/raft", "coordinator/src/meta"];
    let outside = |file: &SourceFile| !doors.iter().any(|door| file.path.starts_with(door)) && !file.is_tidy();
    none(lines_with(outside, &["openraft::", "use openraft"], "openraft is used outside its modules"));
}

#[test]
fn pure_files_do_no_input_or_output() {
    let forbidden =
        ["tokio", "disk::", "std::fs", "std::net", "std::io", "std::thread", "std::time::Instant", "async fn"];
    let is_pure =
        |file: &SourceFile| PURE.contains(&file.path.as_str()) || file.path.starts_with("coordinator/routing/");
    none(lines_with(is_pure, &forbidden, "this file only computes"));
    let tree = Tree::load();
    none(PURE.iter().filter(|path| !tree.has(path)).map(|path| format!("{path} is gone; tell this test")).collect());
}

#[test]
fn clients_and_runtimes_stay_out_of_common() {
    let forbidden = ["Runtime::new", "runtime::Builder", "reqwest", "axum", "block_on"];
    // HTTP is known to the transport that every process has both ends of, and to the page of metrics that each shows.
    let common = |file: &SourceFile| {
        file.path.starts_with("common/src")
            && !file.path.contains("test")
            && !file.path.starts_with("common/src/transport/http")
            && !file.path.starts_with("common/src/telemetry/")
    };
    none(lines_with(common, &forbidden, "common starts no runtime and knows no HTTP"));
}

#[test]
fn rust_files_are_short_described_and_well_named() {
    let mut offences = Vec::new();
    for file in Tree::load().rust_files() {
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            offences.push(format!("{}: {lines} lines, at most {LINES_MAX}", file.path));
        }
        if !file.text.starts_with("//! ") {
            offences.push(format!("{}: does not begin with a //! line that says what it is", file.path));
        }
        let name = file.path.rsplit('/').next().unwrap_or_default();
        if EMPTY_NAMES.contains(&name) {
            offences.push(format!("{}: the name says nothing", file.path));
        }
    }
    none(offences);
}

#[test]
fn nothing_is_left_unfinished() {
    // Put together here, so that this file is not its own offence.
    let macros = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    let macros: Vec<&str> = macros.iter().map(String::as_str).collect();
    let mut offences = lines_with(|_| true, &macros, "unfinished");
    let marks = ["TO", "FIX", "XX"].map(|start| {
        format!(
            "{start}{}",
            if start == "TO" {
                "DO"
            } else if start == "FIX" {
                "ME"
            } else {
                "X"
            }
        )
    });
    for file in Tree::load().rust_files() {
        for (number, line) in file.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                offences.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    none(offences);
}

#[test]
fn unsafe_code_is_where_it_was_agreed() {
    let allowed = |path: &str| {
        path.starts_with("common/src/distance")
            || path.starts_with("common/src/disk")
            || path.starts_with("shard-node/index/src/codes/kernel")
            || path == "shard-node/index/src/prefetch.rs"
            // Two calls of the C library's allocator.
            || path == "src/memory.rs"
            // Stands in for the C library's source of random bytes.
            || path == "chaos-tests/src/sim/entropy.rs"
    };
    none(lines_with(
        |file| !allowed(&file.path) && !file.is_tidy(),
        &["unsafe {", "unsafe fn", "unsafe impl"],
        "no unsafe here",
    ));
}

#[test]
fn the_top_level_stays_as_it_is() {
    let mut offences = Tree::load().top_level;
    offences.retain(|name| !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()));
    // What a run leaves behind is ignored by version control.
    offences.retain(|name| name != "vicinal-data");
    none(offences);
}

#[test]
fn text_files_are_clean_and_name_no_machine() {
    let homes = ["work", "tmp", "home", "root", "Users"].map(|dir| format!("/{dir}/"));
    let mut offences = Vec::new();
    for file in Tree::load().files.iter().filter(|file| file.path != "LICENSE" && file.path != "Cargo.lock") {
        for (number, line) in file.text.lines().enumerate() {
            let place = format!("{}:{}", file.path, number + 1);
            if line.ends_with([' ', '\t']) {
                offences.push(format!("{place}: blanks at the end of the line"));
            }
            if homes.iter().any(|home| line.contains(home.as_str())) {
                offences.push(format!("{place}: names a place on somebody's machine: {}", line.trim()));
            }
        }
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            offences.push(format!("{}: no line end at the end", file.path));
        }
    }
    none(offences);
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    let tree = Tree::load();
    let mut offences = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for part in file.text.split("](").skip(1) {
            let target = part.split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !tree.root.join(folder).join(target).exists() {
                offences.push(format!("{}: {target} does not exist", file.path));
            }
        }
    }
    none(offences);
}
