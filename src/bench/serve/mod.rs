//! `vicinal bench serve`: loads a collection of any server of Qdrant's REST API and asks it, in the closed and in the
//! open loop. Nothing of it depends on which server that is, so that several can be measured with the same command.

mod args;
mod beam;
mod histogram;
mod line;
mod load;
mod machine;
mod open;
mod points;
mod recall;
mod requests;
mod routed;
mod schedule;
mod step;
mod tally;
mod target;
mod vectors;
mod watch;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

pub(crate) use self::args::Serve;
use self::beam::Beam;
use self::line::Measured;
use self::load::Collection;
use self::recall::Recall;
use self::requests::{Requests, Written};
use self::schedule::Mix;
use self::step::{Driver, Keep};
use self::target::Target;
use self::vectors::Vectors;
use super::print_line;
use super::timing::merged;
use crate::bench::index::truth::Truth;
use crate::rest::Rest;

/// Runs it. An error when nothing was answered in some step, after all lines have been written.
pub(super) fn run(serve: &Serve) -> anyhow::Result<()> {
    serve.check()?;
    // Names and rights of the file are checked before anything takes time.
    let mut lines = Lines::open(serve.out.as_deref())?;
    let target = Arc::new(Target::new(&serve.urls, serve.timeout())?);
    let vectors = Vectors::read(serve)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(serve, &vectors, &target, &mut lines))
}

async fn measure(serve: &Serve, vectors: &Vectors, target: &Arc<Target>, lines: &mut Lines) -> anyhow::Result<()> {
    let common = merged([
        json!({
            "bench": "serve",
            "urls": serve.urls,
            "collection": serve.collection,
            "dataset": vectors.dataset,
            "points": vectors.rows().ok().map(|rows| rows.len()),
            "dim": vectors.queries.columns,
            "metric": vectors.metric.name(),
        }),
        json!({"server": target.about().await?, "client": machine::facts()}),
    ]);
    let rest = Rest::new(serve.urls.first().context("there is no --url")?)?;
    let path = format!("/collections/{}", serve.collection);
    let collection = Collection { rest: &rest, path: &path, serve, vectors };
    if serve.load.no_load {
        collection.check().await?;
    } else {
        let loaded = collection.load(target).await?;
        eprintln!(
            "loaded {} points: {} points/s, {} MB/s, {} retries, green {} s later",
            loaded["points"], loaded["points_per_s"], loaded["mb_per_s"], loaded["retries"], loaded["green_s"]
        );
        lines.write(&merged([common.clone(), loaded]))?;
    }
    if serve.load.load_only {
        return Ok(());
    }
    let truth = truth(&collection).await?;
    let mut unanswered = 0;
    for beam in beams(&collection, target, truth.as_ref()).await? {
        let driver = Arc::new(driver(&collection, target, beam.ef, truth.as_ref())?);
        let common = merged([common.clone(), asked(serve, vectors), beam.line()]);
        unanswered += Sweep { serve, driver, common, truth: truth.as_ref() }.run(lines).await?;
    }
    ensure!(unanswered == 0, "no request was answered in {unanswered} of the steps");
    Ok(())
}

/// The beams to measure with: the one that is asked for, or for each recall the smallest that reaches it.
async fn beams(collection: &Collection<'_>, target: &Arc<Target>, truth: Option<&Truth>) -> anyhow::Result<Vec<Beam>> {
    let query = &collection.serve.query;
    if query.recall.is_empty() {
        return Ok(vec![Beam { ef: query.ef, recall: None }]);
    }
    let truth = truth.context("--recall needs queries, and their exact neighbours")?;
    let recall = async |ef: usize| {
        let driver = driver(collection, target, Some(ef), Some(truth))?;
        beam::recall(Arc::new(driver), truth.neighbours()).await
    };
    let mut beams = Vec::new();
    for wanted in &query.recall {
        let ef = beam::smallest(query.k, *wanted, &recall).await?;
        eprintln!("recall {wanted} takes a beam of {ef}");
        beams.push(Beam { ef: Some(ef), recall: Some(*wanted) });
    }
    Ok(beams)
}

/// The exact answers, where recall is wanted.
async fn truth(collection: &Collection<'_>) -> anyhow::Result<Option<Truth>> {
    let Collection { rest, path, serve, vectors } = collection;
    if !serve.wants_recall() {
        return Ok(None);
    }
    collection.check_count().await?;
    let rows = vectors.rows()?.len();
    ensure!(serve.query.k <= rows, "--k {} of {rows} vectors", serve.query.k);
    let matching = match &serve.query.filter {
        Some(filter) => Some(vectors::matching(rest, path, filter, rows).await?),
        None => None,
    };
    if let Some(matching) = &matching {
        eprintln!("the filter matches {} of {rows} points", matching.count());
    }
    vectors.truth(serve, matching.as_ref()).map(Some)
}

fn driver(
    collection: &Collection<'_>,
    target: &Arc<Target>,
    ef: Option<usize>,
    truth: Option<&Truth>,
) -> anyhow::Result<Driver> {
    let Collection { path, serve, vectors, .. } = collection;
    let written = match serve.query.write_share > 0.0 {
        true => Some(Written { rows: vectors.rows()?, payload: serve.payload(), batch: serve.query.write_batch }),
        false => None,
    };
    let mix = Mix::new(serve.query.write_share);
    Ok(Driver {
        target: target.clone(),
        requests: Requests::new(path, mix, &vectors.queries, &serve.asked(ef), written),
        keep: if truth.is_some() { Keep::First } else { Keep::Nothing },
        warmup: Duration::from_secs_f64(serve.steps.warmup),
        measured: Duration::from_secs_f64(serve.steps.seconds),
    })
}

/// The settings of all steps.
fn asked(serve: &Serve, vectors: &Vectors) -> Value {
    let query = &serve.query;
    json!({
        "queries": vectors.queries.rows(),
        "k": query.k,
        "recall_target": query.recall_target,
        "exact": query.exact,
        "filter": query.filter,
        "with_payload": query.with_payload,
        "batch_queries": query.batch_queries,
        "write_share": query.write_share,
        "write_batch": query.write_batch,
        "seconds": serve.steps.seconds,
        "warmup_s": serve.steps.warmup,
        "seed": serve.set.seed,
    })
}

/// All steps of the query phase.
struct Sweep<'a> {
    serve: &'a Serve,
    driver: Arc<Driver>,
    /// Fields of every line.
    common: Value,
    truth: Option<&'a Truth>,
}

impl Sweep<'_> {
    /// Returns how many steps had no answer at all.
    async fn run(&self, lines: &mut Lines) -> anyhow::Result<u32> {
        eprintln!("{}", line::head());
        let mut unanswered = 0;
        for (number, mode) in self.serve.steps.modes().into_iter().enumerate() {
            let seed = self.serve.set.seed.wrapping_add(number as u64);
            let watch = self.serve.watch.start().await?;
            let ended = self.driver.step(mode, seed).await?;
            let seen = watch.end(ended.sent).await?;
            let recall = self.truth.map(|truth| Recall::of(&ended.tally.kept, truth.neighbours()));
            let measured = Measured {
                mode,
                seconds: self.serve.steps.seconds,
                batch_queries: self.serve.query.batch_queries.unwrap_or(1),
                write_batch: self.serve.query.write_batch,
                tally: ended.tally,
                not_started: ended.not_started,
                recall,
                seen,
            };
            lines.write(&merged([self.common.clone(), measured.line()]))?;
            measured.rows().iter().for_each(|row| eprintln!("{row}"));
            for (error, text) in &measured.tally.examples {
                eprintln!("  {} x {}, such as: {text}", measured.tally.errors[error], error.name());
            }
            unanswered += u32::from(measured.is_unanswered());
        }
        Ok(unanswered)
    }
}

/// Where lines of JSON go.
enum Lines {
    Stdout,
    File(File),
}

impl Lines {
    fn open(path: Option<&Path>) -> anyhow::Result<Lines> {
        let Some(path) = path else { return Ok(Lines::Stdout) };
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Lines::File(file.with_context(|| format!("cannot write to {}", path.display()))?))
    }

    fn write(&mut self, line: &Value) -> anyhow::Result<()> {
        match self {
            Lines::Stdout => print_line(&line.to_string()),
            Lines::File(file) => writeln!(file, "{line}").context("cannot write a line to --out")?,
        }
        Ok(())
    }
}
