//! The source tree as the tidy test sees it: every text file with its path.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold no sources of ours.
const NOT_OURS: [&str; 5] = ["target", ".git", ".venv", "vicinal-data", "__pycache__"];
/// Largest file looked at; text is smaller.
const TEXT_BYTES_MAX: u64 = 2 << 20;

/// All of it.
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    pub(crate) top_level: Vec<String>,
    pub(crate) files: Vec<SourceFile>,
}

/// One text file.
pub(crate) struct SourceFile {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Tree {
    /// Reads the tree.
    pub(crate) fn load() -> Tree {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").to_owned();
        let mut tree = Tree { top_level: names(&root), files: Vec::new(), root };
        tree.collect(&tree.root.clone());
        assert!(tree.rust_files().count() > 20, "the sources were not found");
        tree
    }

    fn collect(&mut self, dir: &Path) {
        for name in names(dir) {
            let path = dir.join(&name);
            if path.is_dir() {
                if !NOT_OURS.contains(&name.as_str()) {
                    self.collect(&path);
                }
                continue;
            }
            // In a linked worktree `.git` is a file.
            if NOT_OURS.contains(&name.as_str()) {
                continue;
            }
            let is_small = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= TEXT_BYTES_MAX);
            // What is no text (the compressed demo data) fails to be read as such.
            if let Some(text) = is_small.then(|| fs::read_to_string(&path).ok()).flatten() {
                let relative = path.strip_prefix(&self.root).expect("it is below the root");
                let path = relative.to_str().expect("names are plain text").replace('\\', "/");
                self.files.push(SourceFile { path, text });
            }
        }
    }

    pub(crate) fn rust_files(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.iter().any(|file| file.path == path)
    }

    pub(crate) fn file(&self, path: &str) -> &SourceFile {
        self.files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path} is missing"))
    }
}

impl SourceFile {
    /// Numbered lines without comments.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The tidy test itself names what it forbids.
    pub(crate) fn is_tidy(&self) -> bool {
        self.path.starts_with("chaos-tests/tests/tidy")
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("entries can be read").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
