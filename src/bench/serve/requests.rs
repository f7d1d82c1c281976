//! The requests of the query phase: encoded before the clock starts, found by their number.

use bytes::{BufMut, Bytes, BytesMut};
use reqwest::Method;
use serde_json::{Value, json};
use vicinal_index::Rows;

use super::points::{self, Payload};
use super::recall::Shape;
use super::schedule::{Mix, Operation, Spread};
use super::tally::Kind;
use crate::bench::ingest::push_vector;
use crate::bench::npy::Matrix;

/// Most points that writes go to, so that their bodies fit into memory.
const WRITE_POINTS_MAX: usize = 10_000;

/// What is asked with each query vector.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) k: usize,
    /// The server's choice when absent.
    pub(super) ef: Option<usize>,
    /// What routing by cluster aims at; the collection's choice when absent.
    pub(super) recall_target: Option<f64>,
    pub(super) exact: bool,
    pub(super) filter: Option<Value>,
    pub(super) with_payload: bool,
    /// Queries per request to `points/query/batch`; absent for `points/query`.
    pub(super) batch: Option<usize>,
}

impl Asked {
    fn encode(&self, vector: &[f32]) -> Bytes {
        let mut params = serde_json::Map::new();
        if let Some(ef) = self.ef {
            params.insert("hnsw_ef".into(), json!(ef));
        }
        if let Some(recall) = self.recall_target {
            params.insert("recall_target".into(), json!(recall));
        }
        if self.exact {
            params.insert("exact".into(), json!(true));
        }
        let mut rest = json!({"limit": self.k, "with_payload": self.with_payload});
        if !params.is_empty() {
            rest["params"] = Value::Object(params);
        }
        if let Some(filter) = &self.filter {
            rest["filter"] = filter.clone();
        }
        let mut body = String::from("{\"query\":");
        push_vector(&mut body, vector);
        body.push(',');
        // Another object's fields, behind those that are here.
        body.push_str(&rest.to_string()[1..]);
        Bytes::from(body)
    }
}

/// The points that writes write again, as they are.
pub(super) struct Written<'a> {
    pub(super) rows: Rows<'a>,
    pub(super) payload: Payload,
    /// Points per request.
    pub(super) batch: usize,
}

/// One request.
pub(super) struct Request<'a> {
    /// Number among the requests of its kind: which server has its turn. By the number among all, writes could go to
    /// one server alone.
    pub(super) turn: u64,
    pub(super) kind: Kind,
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) body: Bytes,
    /// Rows of the query file, in the order of the request.
    pub(super) queries: Vec<usize>,
    pub(super) shape: Shape,
}

/// All requests there can be.
pub(super) struct Requests {
    mix: Mix,
    query_path: String,
    write_path: String,
    queries: Vec<Bytes>,
    batch: Option<usize>,
    order: Spread,
    /// Empty when there are no writes.
    writes: Vec<Bytes>,
}

impl Requests {
    /// There is at least one query, and `written` when the mix has writes. `collection` is the path of the collection.
    pub(super) fn new(
        collection: &str,
        mix: Mix,
        vectors: &Matrix<f32>,
        asked: &Asked,
        written: Option<Written<'_>>,
    ) -> Requests {
        let end = if asked.batch.is_some() { "/batch" } else { "" };
        Requests {
            mix,
            query_path: format!("{collection}/points/query{end}"),
            write_path: format!("{collection}/points?wait=true"),
            queries: (0..vectors.rows()).map(|row| asked.encode(vectors.row(row))).collect(),
            batch: asked.batch,
            order: Spread::new(vectors.rows()),
            writes: written.map(|written| written.bodies()).unwrap_or_default(),
        }
    }

    /// Different queries.
    pub(super) fn queries(&self) -> usize {
        self.queries.len()
    }

    /// Requests that ask every query at least once, where there are no writes among them.
    pub(super) fn for_each_query(&self) -> u64 {
        self.queries.len().div_ceil(self.batch.unwrap_or(1)) as u64
    }

    /// The request of a number.
    pub(super) fn request(&self, number: u64) -> Request<'_> {
        match self.mix.operation(number) {
            Operation::Query(query) => self.query(query),
            Operation::Write(write) => Request {
                turn: write,
                kind: Kind::Write,
                method: Method::PUT,
                path: &self.write_path,
                body: self.writes[(write % self.writes.len() as u64) as usize].clone(),
                queries: Vec::new(),
                shape: Shape::One,
            },
        }
    }

    fn query(&self, number: u64) -> Request<'_> {
        let (queries, shape, body) = match self.batch {
            None => {
                let query = self.order.at(number);
                (vec![query], Shape::One, self.queries[query].clone())
            }
            Some(batch) => {
                let first = number.wrapping_mul(batch as u64);
                let queries: Vec<usize> = (0..batch as u64).map(|i| self.order.at(first.wrapping_add(i))).collect();
                let body = self.batch_body(&queries);
                (queries, Shape::Batch, body)
            }
        };
        Request { turn: number, kind: Kind::Query, method: Method::POST, path: &self.query_path, body, queries, shape }
    }

    fn batch_body(&self, queries: &[usize]) -> Bytes {
        let bytes: usize = queries.iter().map(|query| self.queries[*query].len() + 1).sum();
        let mut body = BytesMut::with_capacity(bytes + 16);
        body.put_slice(b"{\"searches\":[");
        for (i, query) in queries.iter().enumerate() {
            if i > 0 {
                body.put_u8(b',');
            }
            body.put_slice(&self.queries[*query]);
        }
        body.put_slice(b"]}");
        body.freeze()
    }
}

impl Written<'_> {
    /// Bodies over points that are spread over all.
    fn bodies(&self) -> Vec<Bytes> {
        let order = Spread::new(self.rows.len());
        let chosen: Vec<u32> =
            (0..self.rows.len().min(WRITE_POINTS_MAX) as u64).map(|number| order.at(number) as u32).collect();
        chosen.chunks(self.batch).map(|rows| points::body(self.rows, rows.iter().copied(), self.payload)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Rows<'static> = Rows { data: &[0.0, 1.0, 2.0, 3.0, 4.0], dim: 1 };

    fn asked() -> Asked {
        Asked { k: 3, ef: None, recall_target: None, exact: false, filter: None, with_payload: false, batch: None }
    }

    fn queries() -> Matrix<f32> {
        Matrix { columns: 2, values: vec![0.5, 1.0, 2.0, 3.0, 4.0, 5.0] }
    }

    fn json_of(request: &Request<'_>) -> Value {
        serde_json::from_slice(&request.body).unwrap()
    }

    #[test]
    fn a_query_says_what_the_flags_ask_for() {
        let plain = Requests::new("/collections/c", Mix::new(0.0), &queries(), &asked(), None);
        let request = plain.request(0);
        assert_eq!((request.path, &request.queries[..]), ("/collections/c/points/query", &[0][..]));
        assert_eq!(json_of(&request), json!({"query": [0.5, 1], "limit": 3, "with_payload": false}));

        let filter = json!({"must": [{"key": "kind", "match": {"value": "k1"}}]});
        let all = Asked {
            ef: Some(64),
            recall_target: Some(0.75),
            exact: true,
            filter: Some(filter.clone()),
            with_payload: true,
            ..asked()
        };
        let body = json_of(&Requests::new("/collections/c", Mix::new(0.0), &queries(), &all, None).request(0));
        assert_eq!(body["params"], json!({"hnsw_ef": 64, "recall_target": 0.75, "exact": true}));
        assert_eq!((&body["filter"], &body["with_payload"]), (&filter, &json!(true)));
    }

    #[test]
    fn batches_go_through_the_queries_like_single_ones() {
        let single = Requests::new("/collections/c", Mix::new(0.0), &queries(), &asked(), None);
        let batch = Asked { batch: Some(2), ..asked() };
        let batches = Requests::new("/collections/c", Mix::new(0.0), &queries(), &batch, None);
        for number in 0..5 {
            let request = batches.request(number);
            let expected = [2 * number, 2 * number + 1].map(|number| single.request(number));
            assert_eq!(request.queries, [expected[0].queries[0], expected[1].queries[0]]);
            assert_eq!(json_of(&request)["searches"], json!([json_of(&expected[0]), json_of(&expected[1])]));
            assert_eq!((request.path, request.shape), ("/collections/c/points/query/batch", Shape::Batch));
        }
        batches.request(u64::MAX / 2);
    }

    #[test]
    fn writes_write_every_point_in_turn() {
        let written = Written { rows: BASE, payload: Payload::Nothing, batch: 2 };
        let requests = Requests::new("/collections/c", Mix::new(1.0), &queries(), &asked(), Some(written));
        let mut ids = Vec::new();
        for number in 0..3 {
            let request = requests.request(number);
            assert_eq!((request.kind, request.path), (Kind::Write, "/collections/c/points?wait=true"));
            for point in json_of(&request)["points"].as_array().unwrap() {
                assert_eq!(point["vector"], json!([point["id"]]));
                ids.push(point["id"].as_u64().unwrap());
            }
        }
        ids.sort_unstable();
        assert_eq!(ids, [0, 1, 2, 3, 4]);
        assert_eq!(requests.request(3).body, requests.request(0).body);
    }
}
