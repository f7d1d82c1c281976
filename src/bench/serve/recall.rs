//! How many of the exact neighbours the answers hold.

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The first answer to some queries within a step, kept to be compared after the clock has stopped.
pub(super) struct Kept {
    /// The queries of the request in its order; `None` for one that was answered before.
    pub(super) queries: Vec<Option<usize>>,
    pub(super) shape: Shape,
    pub(super) body: Vec<u8>,
}

/// What an answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Of `points/query`.
    One,
    /// Of `points/query/batch`.
    Batch,
}

/// What was found of what could be found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Recall {
    found: u64,
    wanted: u64,
    /// Different queries that were compared.
    pub(super) queries: u64,
    /// Answers that could not be read, and count as nothing here.
    pub(super) unreadable: u64,
}

impl Recall {
    /// Compares answers with the exact neighbours of each query.
    pub(super) fn of(kept: &[Kept], exact: &[Vec<u32>]) -> Recall {
        let mut recall = Recall::default();
        for kept in kept {
            match hits(kept) {
                Ok(lists) => recall.add(&kept.queries, &lists, exact),
                Err(_) => recall.unreadable += 1,
            }
        }
        recall
    }

    fn add(&mut self, queries: &[Option<usize>], lists: &[Vec<Option<u64>>], exact: &[Vec<u32>]) {
        for (query, hits) in queries.iter().zip(lists) {
            let Some(exact) = query.and_then(|query| exact.get(query)) else { continue };
            let best = hits.iter().take(exact.len());
            let is_exact = |id: &&Option<u64>| exact.iter().any(|row| Some(u64::from(*row)) == **id);
            self.found += best.filter(is_exact).count() as u64;
            self.wanted += exact.len() as u64;
            self.queries += 1;
        }
    }

    /// Mean share of the exact neighbours; `None` when there are none to be found.
    pub(super) fn share(&self) -> Option<f64> {
        (self.wanted > 0).then(|| (self.found as f64 / self.wanted as f64 * 1e4).round() / 1e4)
    }
}

#[derive(Deserialize)]
struct Answer<R> {
    result: R,
}

#[derive(Deserialize)]
struct Hits {
    points: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    id: Id,
}

/// Points of the benchmark have the numbers of their rows; other ones are no neighbours of anything.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Row(u64),
    Other(IgnoredAny),
}

/// The ids of each query of the request.
fn hits(kept: &Kept) -> anyhow::Result<Vec<Vec<Option<u64>>>> {
    let lists: Vec<Hits> = match kept.shape {
        Shape::One => vec![parse::<Hits>(&kept.body)?],
        Shape::Batch => parse(&kept.body)?,
    };
    ensure!(lists.len() == kept.queries.len(), "{} answers to {} queries", lists.len(), kept.queries.len());
    let id = |hit: Hit| match hit.id {
        Id::Row(row) => Some(row),
        Id::Other(IgnoredAny) => None,
    };
    Ok(lists.into_iter().map(|hits| hits.points.into_iter().map(id).collect()).collect())
}

fn parse<R: for<'a> Deserialize<'a>>(body: &[u8]) -> anyhow::Result<R> {
    let answer: Answer<R> = serde_json::from_slice(body).context("the answer has not the expected form")?;
    Ok(answer.result)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn points(ids: &[Value]) -> Value {
        let points: Vec<Value> = ids.iter().map(|id| json!({"id": id, "score": 1.0, "version": 3})).collect();
        json!({"points": points})
    }

    fn one(query: usize, ids: &[Value]) -> Kept {
        let body = json!({"result": points(ids), "status": "ok", "time": 0.1}).to_string().into_bytes();
        Kept { queries: vec![Some(query)], shape: Shape::One, body }
    }

    #[test]
    fn recall_is_the_share_of_the_exact_neighbours() {
        let exact = [vec![1, 2], vec![4, 5], vec![]];
        let kept = [one(0, &[json!(2), json!(1)]), one(1, &[json!(4), json!(9)])];
        let recall = Recall::of(&kept, &exact);
        assert_eq!((recall.share(), recall.queries, recall.unreadable), (Some(0.75), 2, 0));
        // What follows behind the k best does not count, nor do points with other ids.
        let recall =
            Recall::of(&[one(0, &[json!("00000000-0000-0000-0000-000000000001"), json!(7), json!(1)])], &exact);
        assert_eq!(recall.share(), Some(0.0));
        let recall = Recall::of(&[one(2, &[])], &exact);
        assert_eq!((recall.share(), recall.queries), (None, 1));
    }

    #[test]
    fn a_batch_counts_each_query_that_was_not_seen_before() {
        let body = json!({"result": [points(&[json!(1)]), points(&[json!(8)]), points(&[json!(5)])]}).to_string();
        let kept = Kept { queries: vec![Some(0), None, Some(1)], shape: Shape::Batch, body: body.into_bytes() };
        let recall = Recall::of(&[kept], &[vec![1], vec![5]]);
        assert_eq!((recall.share(), recall.queries), (Some(1.0), 2));
    }

    #[test]
    fn answers_of_another_form_are_counted_apart() {
        let kept = |shape, body: &str| Kept { queries: vec![Some(0)], shape, body: body.into() };
        let broken = [
            kept(Shape::One, "no json"),
            kept(Shape::One, "{\"result\":[]}"),
            kept(Shape::Batch, "{\"result\":[]}"),
            kept(Shape::Batch, "{\"result\":{\"points\":[]}}"),
        ];
        let recall = Recall::of(&broken, &[vec![1]]);
        assert_eq!((recall.share(), recall.unreadable), (None, 4));
    }
}
