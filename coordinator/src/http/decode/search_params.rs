//! How a search is to be carried out: the `params` of a query.

use std::sync::Arc;

use serde::Deserialize;
use vicinal_common::error::Error;
use vicinal_common::filter::Filter;
use vicinal_common::limits::{OVERSAMPLING_MAX, SEARCH_SHARDS_MAX};

use super::super::answer::Failure;
use crate::query::Width;

/// Parameters of a search as they are sent.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchParams {
    hnsw_ef: Option<usize>,
    exact: Option<bool>,
    indexed_only: Option<bool>,
    quantization: Option<QuantizationInput>,
    acorn: Option<AcornInput>,
    idf: Option<IdfInput>,
    recall_target: Option<f32>,
    nprobe_shards: Option<u32>,
    routing: Option<RoutingInput>,
}

/// Who answers, where points are routed by cluster.
#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RoutingInput {
    Homes,
    All,
}

/// How codes are used. Ours always find candidates only, which are scored exactly: `ignore` and `rescore` change
/// nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuantizationInput {
    #[serde(rename = "ignore")]
    _ignore: Option<bool>,
    #[serde(rename = "rescore")]
    _rescore: Option<bool>,
    oversampling: Option<f64>,
}

/// How a filter is walked with. Chosen from what the filter matches, so it changes nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcornInput {
    #[serde(rename = "enable")]
    _enable: Option<bool>,
    max_selectivity: Option<f64>,
}

/// Among which points a dimension of a sparse vector is rare.
#[derive(Deserialize)]
#[serde(untagged)]
enum IdfInput {
    Scope(IdfScope),
    Corpus(IdfCorpus),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum IdfScope {
    Global,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdfCorpus {
    corpus: Filter,
}

/// Parameters of a search as they are understood.
pub(super) struct Understood {
    pub(super) ef: Option<usize>,
    pub(super) exact: bool,
    pub(super) oversampling: Option<f64>,
    pub(super) idf_corpus: Option<Arc<Filter>>,
    pub(super) width: Width,
}

impl SearchParams {
    /// How widely search shards are asked. At most one of the parameters says so.
    fn width(&self) -> Result<Width, Error> {
        let refuse =
            |field: &str, message: String| Err(Error::Validation { field: format!("params.{field}"), message });
        let given = [
            ("recall_target", self.recall_target.is_some()),
            ("nprobe_shards", self.nprobe_shards.is_some()),
            ("routing", self.routing.is_some()),
        ];
        let mut given = given.into_iter().filter(|(_, is_given)| *is_given).map(|(field, _)| field);
        if let (Some(first), Some(second)) = (given.next(), given.next()) {
            return refuse(
                second,
                format!("cannot be used with `{first}`: each says how many search shards are asked"),
            );
        }
        match (self.recall_target, self.nprobe_shards, self.routing) {
            (Some(recall), ..) if !(recall > 0.0 && recall <= 1.0) => {
                refuse("recall_target", format!("value {recall} invalid, must be above 0.0 and at most 1.0"))
            }
            (Some(recall), ..) => Ok(Width::Recall(recall)),
            (_, Some(count), _) if !(1..=SEARCH_SHARDS_MAX).contains(&count) => {
                refuse("nprobe_shards", format!("value {count} invalid, must be from 1 to {SEARCH_SHARDS_MAX}"))
            }
            (_, Some(count), _) => Ok(Width::Shards(count)),
            (.., Some(RoutingInput::Homes)) => Ok(Width::Homes),
            (.., Some(RoutingInput::All)) => Ok(Width::All),
            (None, None, None) => Ok(Width::Usual),
        }
    }

    /// Checks them.
    pub(super) fn understood(self) -> Result<Understood, Failure> {
        let width = self.width()?;
        let refuse = |field: &str, message: String| Error::Validation { field: field.into(), message };
        let share = self.acorn.and_then(|acorn| acorn.max_selectivity);
        if let Some(share) = share.filter(|share| !(0.0..=1.0).contains(share)) {
            let message = format!("value {share} invalid, must be from 0.0 to 1.0");
            return Err(refuse("params.acorn.max_selectivity", message).into());
        }
        let oversampling = self.quantization.and_then(|quantization| quantization.oversampling);
        if let Some(factor) = oversampling.filter(|factor| !(1.0..=OVERSAMPLING_MAX).contains(factor)) {
            let message = format!("value {factor} invalid, must be from 1.0 to {OVERSAMPLING_MAX}");
            return Err(refuse("params.quantization.oversampling", message).into());
        }
        if self.indexed_only == Some(true) {
            return Err(Error::BadInput(
                "`params.indexed_only` is not supported: points without a graph are scanned".into(),
            )
            .into());
        }
        let idf_corpus = match self.idf {
            None | Some(IdfInput::Scope(IdfScope::Global)) => None,
            Some(IdfInput::Corpus(IdfCorpus { corpus })) => Some(Arc::new(corpus)),
        };
        Ok(Understood { ef: self.hnsw_ef, oversampling, exact: self.exact.unwrap_or(false), idf_corpus, width })
    }
}
