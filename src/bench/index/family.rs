//! From a family's name and its parameters to an index: the only place that knows which indexes there are.

use std::sync::atomic::{AtomicBool, AtomicU64};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use vicinal_common::metric::Metric;
use vicinal_index::hnsw::{BuildControl, HnswIndex, HnswParams, Over};
use vicinal_index::{FlatIndex, Rows, VectorIndex};

/// Their names.
const FAMILIES: [&str; 4] = ["flat", "flat-sq8", "hnsw", "hnsw-f32"];

/// What the beam `ef` does to a family.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Beam {
    /// Wider is slower and better: worth a sweep.
    Matters,
    /// Nothing: one point is the whole curve.
    Ignored,
}

/// An index ready to be searched.
pub(super) struct Built {
    pub(super) index: Box<dyn VectorIndex>,
    /// What it was built with, for the report.
    pub(super) params: Map<String, Value>,
    pub(super) beam: Beam,
}

/// Refuses unknown families and parameters, before any file is read.
pub(super) fn check(family: &str, params: &[(String, String)]) -> anyhow::Result<()> {
    match family {
        "flat" | "flat-sq8" => Params::new(params).finish(&[]),
        "hnsw" => hnsw_params(params, Over::Codes).map(|_| ()),
        "hnsw-f32" => hnsw_params(params, Over::Vectors).map(|_| ()),
        other => bail!("unknown --family `{other}` (known: {})", FAMILIES.join(", ")),
    }
}

/// Builds an index over `rows` on `threads` threads.
pub(super) fn build(
    family: &str,
    params: &[(String, String)],
    rows: Rows<'_>,
    metric: Metric,
    threads: usize,
) -> anyhow::Result<Built> {
    check(family, params)?;
    let (cancel, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let control = BuildControl { cancel: &cancel, done: &done, threads };
    let flat = match family {
        "flat" => Some(FlatIndex::new(metric)),
        "flat-sq8" => Some(FlatIndex::coded(rows, metric, threads).context("cannot code the vectors")?),
        _ => None,
    };
    if let Some(flat) = flat {
        return Ok(Built { index: Box::new(flat), params: Map::new(), beam: Beam::Ignored });
    }
    let params = graph_params(family, params)?.context("families without a graph were dealt with")?;
    let index = HnswIndex::build(rows, metric, params, control).context("cannot build the index")?;
    let index = index.with_short_codes().context("no memory for the codes to walk over")?;
    let report = json!({"m": params.m, "ef_construction": params.ef_construction, "seed": params.seed});
    let report = report.as_object().cloned().unwrap_or_default();
    Ok(Built { index: Box::new(index), params: report, beam: Beam::Matters })
}

/// What the graph of a family is built with; `None` where there is nothing to build.
pub(super) fn graph_params(family: &str, params: &[(String, String)]) -> anyhow::Result<Option<HnswParams>> {
    match family {
        "flat" | "flat-sq8" => Ok(None),
        "hnsw" => hnsw_params(params, Over::Codes).map(Some),
        _ => hnsw_params(params, Over::Vectors).map(Some),
    }
}

fn hnsw_params(given: &[(String, String)], over: Over) -> anyhow::Result<HnswParams> {
    let default = HnswParams::default();
    let params = Params::new(given);
    let hnsw = HnswParams {
        m: params.get("m", default.m)?,
        ef_construction: params.get("ef_construction", default.ef_construction)?,
        seed: params.get("seed", default.seed)?,
        over,
    };
    params.finish(&["m", "ef_construction", "seed"])?;
    Ok(hnsw)
}

/// The `--param` flags.
struct Params<'a>(&'a [(String, String)]);

impl<'a> Params<'a> {
    fn new(given: &'a [(String, String)]) -> Params<'a> {
        Params(given)
    }

    /// A parameter, the last one given counts.
    fn get<T: std::str::FromStr>(&self, name: &str, default: T) -> anyhow::Result<T> {
        match self.0.iter().rev().find(|(key, _)| key == name) {
            Some((_, value)) => {
                value.parse().ok().with_context(|| format!("--param {name}={value}: not a number in its range"))
            }
            None => Ok(default),
        }
    }

    /// Refuses what nobody asked for.
    fn finish(&self, known: &[&str]) -> anyhow::Result<()> {
        match self.0.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) if known.is_empty() => bail!("--param {key}: this family has no parameters"),
            Some((key, _)) => bail!("unknown --param {key} (known: {})", known.join(", ")),
            None => Ok(()),
        }
    }
}

/// Splits `key=value`.
pub(super) fn parse_param(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use vicinal_index::{Accept, SearchParams};

    use super::*;

    fn given(params: &[&str]) -> Vec<(String, String)> {
        params.iter().map(|param| parse_param(param).unwrap()).collect()
    }

    #[test]
    fn parameters_are_read_and_unknown_ones_refused() {
        let params = hnsw_params(&given(&["m=8", "ef_construction=50", "m=24"]), Over::Codes).unwrap();
        assert_eq!((params.m, params.ef_construction), (24, 50));
        for (family, params, reason) in [
            ("hnsw", given(&["m=many"]), "m=many"),
            ("hnsw", given(&["M=8"]), "unknown --param M"),
            ("flat", given(&["m=8"]), "no parameters"),
            ("tree", given(&[]), "unknown --family `tree`"),
        ] {
            let error = check(family, &params).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert!(parse_param("m").is_err() && parse_param("=3").is_err());
    }

    #[test]
    fn every_family_is_built_and_answers() {
        let data: Vec<f32> = (0..2_000).map(|i| (i % 97) as f32).collect();
        let rows = Rows { data: &data, dim: 2 };
        for family in FAMILIES {
            let built = build(family, &[], rows, Metric::Euclid, 1).unwrap();
            let hits = built.index.search(rows, rows.row(5), SearchParams::new(3, 50), Accept::All);
            assert_eq!((hits.len(), hits[0].distance), (3, 0.0), "{family}");
        }
    }
}
