//! The file of a graph: header, then the four arrays, each with its own checksum. docs/formats/hnsw.md is its contract.

use std::ops::Range;

use vicinal_common::disk::Mapping;
use vicinal_common::error::{Error, Result};
use vicinal_common::metric::Metric;

use super::graph::{GraphView, LAYERS_MAX, NONE, ROWS_MAX, StoredGraph};
use super::{HnswIndex, HnswParams, Over};
use crate::Rows;
use crate::array::{Array, HugeBytes, Residency};
use crate::codes::{CodeErrors, Coder, Codes, LINE, Packing, RowTerms};

#[cfg(target_endian = "big")]
compile_error!("the arrays of a mapped graph are little-endian and are used in place");

const MAGIC: [u8; 8] = *b"VCNLHNSW";
const VERSION: u32 = 3;
const HEADER_BYTES: usize = 384;
const HEADER_CRC_AT: usize = HEADER_BYTES - 4;
const LAYER_NODES_AT: usize = 64;
const SECTIONS_AT: usize = 128;
const SECTION_BYTES: usize = 24;
/// Of the graph: base, upper_rows, upper, twins. Of the codes: mean, codes, terms.
const SECTIONS: usize = 7;
const SECTION_NAMES: [&str; SECTIONS] = ["base", "upper_rows", "upper", "twins", "mean", "codes", "terms"];
/// Sections begin at multiples of this: a cache line.
const ALIGNMENT: usize = 64;
/// Where in the header each field is.
mod field {
    pub(super) const VERSION: usize = 8;
    pub(super) const METRIC: usize = 12;
    pub(super) const ROWS: usize = 16;
    pub(super) const SEED: usize = 24;
    pub(super) const DIM: usize = 32;
    pub(super) const M: usize = 40;
    pub(super) const EF_CONSTRUCTION: usize = 44;
    pub(super) const LAYERS: usize = 48;
    pub(super) const ENTRY: usize = 52;
    pub(super) const OVER: usize = 56;
    pub(super) const STEP: usize = 60;
    pub(super) const NEAR_RATIO: usize = 296;
    pub(super) const ERROR_STEPS: usize = 300;
    pub(super) const NORM_STEPS: usize = 304;
    pub(super) const STEP_MAX: usize = 308;
    pub(super) const LENGTH_MAX: usize = 312;
}

fn corrupt(what: &str) -> Error {
    Error::Corrupt(format!("hnsw index: {what}"))
}

/// A parameter or the number of layers.
fn word(value: usize) -> u32 {
    u32::try_from(value).expect("build and open limit it to far less than 32 bits")
}

impl HnswIndex {
    /// Appends the file's bytes to `out`, which must be empty or hold whole cache lines before it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let graph = self.graph();
        let start = out.len();
        let mut header = [0u8; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(field::VERSION, &VERSION.to_le_bytes());
        put(field::METRIC, &self.metric.code().to_le_bytes());
        put(field::ROWS, &(self.rows as u64).to_le_bytes());
        put(field::SEED, &self.params.seed.to_le_bytes());
        put(field::DIM, &(self.dim as u64).to_le_bytes());
        put(field::M, &word(self.params.m).to_le_bytes());
        put(field::EF_CONSTRUCTION, &word(self.params.ef_construction).to_le_bytes());
        put(field::LAYERS, &word(graph.layer_nodes.len()).to_le_bytes());
        put(field::ENTRY, &graph.entry.to_le_bytes());
        for (i, nodes) in graph.layer_nodes.iter().enumerate() {
            put(LAYER_NODES_AT + 4 * i, &nodes.to_le_bytes());
        }
        out.resize(start + HEADER_BYTES, 0);
        put(field::OVER, &over_code(self.params.over).to_le_bytes());
        let coder = self.codes.as_ref().map(|codes| &codes.coder);
        put(field::STEP, &coder.map_or(0.0, |coder| coder.step).to_le_bytes());
        put(field::NEAR_RATIO, &self.codes.as_ref().map_or(0.0, |codes| codes.near_ratio).to_le_bytes());
        let errors = self.codes.as_ref().map_or(CodeErrors::default(), |codes| codes.errors);
        put(field::ERROR_STEPS, &errors.error_steps.to_le_bytes());
        put(field::NORM_STEPS, &errors.norm_steps.to_le_bytes());
        put(field::STEP_MAX, &errors.step_max.to_le_bytes());
        put(field::LENGTH_MAX, &errors.length_max.to_le_bytes());
        let sections: [&[u8]; SECTIONS] = [
            self.graph.base.bytes(),
            self.graph.upper_rows.bytes(),
            self.graph.upper.bytes(),
            self.graph.twins.bytes(),
            coder.map_or(&[], |coder| bytemuck::cast_slice(&coder.mean)),
            self.codes.as_ref().map_or(&[], |codes| codes.data.bytes()),
            self.codes.as_ref().map_or(&[], |codes| codes.terms.bytes()),
        ];
        for (i, bytes) in sections.into_iter().enumerate() {
            let at = SECTIONS_AT + SECTION_BYTES * i;
            put(at, &((out.len() - start) as u64).to_le_bytes());
            put(at + 8, &(bytes.len() as u64).to_le_bytes());
            put(at + 16, &crc32fast::hash(bytes).to_le_bytes());
            out.extend_from_slice(bytes);
            out.resize(start + (out.len() - start).next_multiple_of(ALIGNMENT), 0);
        }
        let crc = crc32fast::hash(&header[..HEADER_CRC_AT]);
        header[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out[start..start + HEADER_BYTES].copy_from_slice(&header);
    }

    /// Opens a file for the rows it was built on. Reads all of it once to verify checksums and every neighbour; builds
    /// nothing. Fails with [`Error::Corrupt`] when anything in it is not as [`HnswIndex::encode`] writes it, or when
    /// the number or the length of the rows differ.
    pub fn open(mapping: Mapping, rows: Rows<'_>, residency: Residency) -> Result<HnswIndex> {
        let header: &[u8; HEADER_BYTES] =
            mapping.first_chunk().ok_or_else(|| corrupt("the file is shorter than its header"))?;
        if header[..MAGIC.len()] != MAGIC {
            return Err(corrupt("header at offset 0: not an index file"));
        }
        let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u32_at(HEADER_CRC_AT) != crc32fast::hash(&header[..HEADER_CRC_AT]) {
            return Err(corrupt("header at offset 0: wrong checksum"));
        }
        if u32_at(field::VERSION) != VERSION {
            return Err(corrupt(&format!("header at offset 0: unknown version {}", u32_at(field::VERSION))));
        }
        let metric = Metric::of_code(u32_at(field::METRIC)).ok_or_else(|| corrupt("unknown metric"))?;
        if u64_at(field::ROWS) != rows.len() as u64 || rows.len() > ROWS_MAX || u64_at(field::DIM) != rows.dim as u64 {
            return Err(corrupt("built for other rows"));
        }
        let params = HnswParams {
            m: u32_at(field::M) as usize,
            ef_construction: u32_at(field::EF_CONSTRUCTION) as usize,
            seed: u64_at(field::SEED),
            over: over_of_code(u32_at(field::OVER))?,
        };
        let layers = u32_at(field::LAYERS) as usize;
        if !params.is_valid() || layers > LAYERS_MAX {
            return Err(corrupt("a parameter is out of range"));
        }
        let mut sections = [const { 0..0 }; SECTIONS];
        let mut expected_start = HEADER_BYTES;
        for (i, section) in sections.iter_mut().enumerate() {
            let at = SECTIONS_AT + SECTION_BYTES * i;
            let (start, length) = (u64_at(at), u64_at(at + 8));
            let end = start.checked_add(length).filter(|end| *end <= mapping.len() as u64);
            let wrong = |what: &str| corrupt(&format!("section {} at offset {start}: {what}", SECTION_NAMES[i]));
            let end = end.ok_or_else(|| wrong("it ends beyond the file"))? as usize;
            *section = start as usize..end;
            if section.start != expected_start || !section.len().is_multiple_of(4) {
                return Err(wrong("it is misplaced"));
            }
            expected_start = end.next_multiple_of(ALIGNMENT);
            if bytemuck::try_cast_slice::<u8, u32>(&mapping[section.clone()]).is_err() {
                return Err(Error::Internal("a mapping is not aligned to 64 bytes".into()));
            }
            if crc32fast::hash(&mapping[section.clone()]) != u32_at(at + 16) {
                return Err(wrong("wrong checksum"));
            }
        }
        if mapping.len() != expected_start {
            return Err(corrupt("the file is longer than its sections"));
        }
        let array = |section: usize, residency: Residency| match residency {
            Residency::Memory => HugeBytes::copy(&mapping[sections[section].clone()]).map(Array::Owned),
            Residency::Mapped => Ok(Array::Mapped(mapping.clone(), sections[section].clone())),
        };
        let no_memory = |error| Error::Unavailable(format!("no memory to open an index: {error}"));
        let read = |section: usize| array(section, residency).map_err(no_memory);
        let graph = StoredGraph {
            m: params.m,
            entry: u32_at(field::ENTRY),
            layer_nodes: (0..layers).map(|i| u32_at(LAYER_NODES_AT + 4 * i)).collect(),
            base: read(0)?,
            upper_rows: read(1)?,
            upper: read(2)?,
            twins: read(3)?,
        };
        verify(&graph.view(), rows.len())?;
        let codes = match params.over {
            Over::Vectors if sections[4..].iter().all(Range::is_empty) => None,
            Over::Vectors => return Err(corrupt("codes that nobody asked for")),
            Over::Codes => {
                let bytes = |section: usize| &mapping[sections[section].clone()];
                let float_at = |at: usize| f32::from_bits(u32_at(at));
                let mean = bytemuck::cast_slice(bytes(4)).to_vec();
                let coder = Coder::new(metric, mean, float_at(field::STEP));
                let errors = CodeErrors {
                    error_steps: float_at(field::ERROR_STEPS),
                    norm_steps: float_at(field::NORM_STEPS),
                    step_max: float_at(field::STEP_MAX),
                    length_max: float_at(field::LENGTH_MAX),
                };
                let near_ratio = float_at(field::NEAR_RATIO);
                let (data, terms) = (read(5)?, read(6)?);
                let codes = Codes { coder, packing: Packing::Lines, data, terms, near_ratio, errors, short: None };
                let fits = codes.coder.dim() == rows.dim
                    && codes.data.bytes().len() == rows.len() * codes.stride() + LINE
                    && codes.terms.bytes().len() == rows.len() * size_of::<RowTerms>();
                if !fits {
                    return Err(corrupt("a section of the codes has the wrong length"));
                }
                Some(codes)
            }
        };
        let index = HnswIndex::new(metric, rows, params, graph, codes);
        match residency {
            Residency::Memory => index.with_short_codes().map_err(no_memory),
            Residency::Mapped => Ok(index),
        }
    }
}

fn over_code(over: Over) -> u32 {
    match over {
        Over::Vectors => 0,
        Over::Codes => 1,
    }
}

fn over_of_code(code: u32) -> Result<Over> {
    let all = [Over::Vectors, Over::Codes];
    all.into_iter().find(|over| over_code(*over) == code).ok_or_else(|| corrupt("unknown kind of graph"))
}

/// Checks that no number in the graph leads out of its arrays and that every chain of equal rows ends.
fn verify(graph: &GraphView<'_>, rows: usize) -> Result<()> {
    let layer_nodes = graph.layer_nodes.iter().map(|nodes| *nodes as usize);
    let first = layer_nodes.clone().next().unwrap_or(0);
    if graph.base.len() != rows * 2 * graph.m
        || graph.upper_rows.len() != first
        || graph.upper.len() != layer_nodes.clone().sum::<usize>() * graph.m
        || !(graph.twins.is_empty() || graph.twins.len() == rows)
    {
        return Err(corrupt("a section has the wrong length"));
    }
    if first > rows || !layer_nodes.clone().is_sorted_by(|a, b| a >= b) || layer_nodes.clone().any(|nodes| nodes == 0) {
        return Err(corrupt("layers do not nest"));
    }
    let is_row = |row: &u32| (*row as usize) < rows;
    if !graph.upper_rows.iter().all(is_row) {
        return Err(corrupt("an upper node has no row"));
    }
    let entry_fits = if rows == 0 { graph.entry == NONE } else { is_row(&graph.entry) };
    if !entry_fits || graph.upper_rows.first().is_some_and(|row| *row != graph.entry) {
        return Err(corrupt("wrong entry point"));
    }
    let lists_fit = |links: &[u32], degree: usize, nodes: usize| {
        links.chunks_exact(degree).all(|list| {
            let count = list.iter().take_while(|node| **node != NONE).count();
            list[..count].iter().all(|node| (*node as usize) < nodes) && list[count..].iter().all(|node| *node == NONE)
        })
    };
    if !lists_fit(graph.base, 2 * graph.m, rows) {
        return Err(corrupt("a list of layer 0 leads outside"));
    }
    for (layer, nodes) in graph.upper_layers().zip(graph.layer_nodes.iter().rev()) {
        if !lists_fit(layer.links, graph.m, *nodes as usize) {
            return Err(corrupt("a list of an upper layer leads outside"));
        }
    }
    // A chain ascends, so it ends.
    if !(0u32..).zip(graph.twins).all(|(row, &next)| next == NONE || (next > row && is_row(&next))) {
        return Err(corrupt("a chain of equal rows does not ascend"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
