//! The exact index: every accepted row is scored, by its vector or, faster, by a code that rules most rows out for certain.
//! Also what a graph falls back to when few rows are accepted.

mod by_code;
mod scan;
#[cfg(test)]
mod tests;

use std::io;

use vicinal_common::distance::Kernel;
use vicinal_common::metric::Metric;

pub(crate) use self::by_code::scan_codes;
pub(crate) use self::scan::scan;
use self::scan::scan_while;
use crate::codes::{CodeKernel, CodedQuery, Codes, Packing};
use crate::{Accept, Hit, Rows, SearchParams, Searched, VectorIndex};

/// Exact search.
pub struct FlatIndex {
    metric: Metric,
    kernel: Kernel,
    codes: Option<(Codes, CodeKernel)>,
}

impl FlatIndex {
    /// Reads every vector; has no structure of its own.
    pub fn new(metric: Metric) -> FlatIndex {
        FlatIndex { metric, kernel: Kernel::new(metric), codes: None }
    }

    /// [`VectorIndex::search`] over the vectors for as long as `goes_on` says yes, which is told of rows before they are read:
    /// some hundred at a time, on any of the threads. Once it has said no the hits are of some rows only.
    pub fn search_while(
        &self,
        rows: Rows<'_>,
        query: &[f32],
        params: SearchParams,
        accept: Accept<'_>,
        goes_on: &(dyn Fn(usize) -> bool + Sync),
    ) -> Vec<Hit> {
        scan_while((&self.kernel, rows), query, params, accept, goes_on).hits
    }

    /// Reads 8-bit codes of all rows, a quarter of the bytes, and few vectors; finds the same. Codes are made on so many
    /// threads. Fails when there is no memory for them, or no thread.
    pub fn coded(rows: Rows<'_>, metric: Metric, threads: usize) -> io::Result<FlatIndex> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build().map_err(io::Error::other)?;
        let codes = pool.install(|| {
            let mut codes = Codes::of(rows, metric, Packing::Dense)?;
            codes.short = codes.shortened()?;
            io::Result::Ok(codes)
        })?;
        Ok(FlatIndex { codes: Some((codes, CodeKernel::new())), ..FlatIndex::new(metric) })
    }
}

impl VectorIndex for FlatIndex {
    fn search_counted(&self, rows: Rows<'_>, query: &[f32], params: SearchParams, accept: Accept<'_>) -> Searched {
        match &self.codes {
            None => scan(&self.kernel, rows, query, params, accept),
            Some((codes, code_kernel)) => {
                assert_eq!(codes.rows(), rows.len(), "searched with the rows that were coded");
                let mut coded = CodedQuery::default();
                codes.coder.query(*code_kernel, query, &mut coded);
                scan_codes((codes, *code_kernel), (&self.kernel, rows), (query, &coded), params, accept)
            }
        }
    }

    fn name(&self) -> &'static str {
        "flat"
    }

    fn metric(&self) -> Metric {
        self.metric
    }

    fn bytes(&self) -> u64 {
        self.codes.as_ref().map_or(0, |(codes, _)| codes.bytes())
    }
}
