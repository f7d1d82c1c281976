//! A client that writes until the server is gone.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use vicinal_chaos_tests::Rest;

use super::model::{GROUPS, KEYS, Model};

/// Dimension of the vectors.
pub(crate) const DIM: usize = 8;
/// Most points in one upsert.
const BATCH_MAX: usize = 64;

/// The vector of a write: no two writes share one.
pub(crate) fn vector(writer: u64, serial: u64, key: u64) -> Vec<f32> {
    let byte = |shift: u32| (serial >> shift & 0xff) as f32;
    vec![byte(0), byte(8), byte(16), writer as f32, (key % 256) as f32, (key / 256) as f32, 1.0, 0.5]
}

/// The payload of a write; its length varies with the serial.
pub(crate) fn payload(writer: u64, serial: u64, key: u64) -> Value {
    let filler = "x".repeat((serial * 37 % 300) as usize);
    json!({"writer": writer, "serial": serial, "group": key % GROUPS, "filler": filler})
}

/// One client with its model.
pub(crate) struct Writer {
    rest: Rest,
    model: Model,
    rng: StdRng,
    acknowledged: usize,
}

/// What it leaves behind.
pub(crate) struct Done {
    pub(crate) model: Model,
    pub(crate) acknowledged: usize,
}

enum Sent {
    Acknowledged,
    /// The server is at a limit and says that it did not write, at least not everywhere.
    Refused,
    Gone,
}

impl Writer {
    pub(crate) fn new(rest: Rest, model: Model, seed: u64) -> Writer {
        Writer { rest, model, rng: StdRng::seed_from_u64(seed), acknowledged: 0 }
    }

    /// Writes and reads until no answer comes any more.
    pub(crate) async fn run(mut self) -> Done {
        loop {
            let sent = match self.rng.random_range(0..100) {
                0..65 => self.upsert().await,
                65..85 => self.delete().await,
                85..90 => self.delete_group().await,
                _ => self.read().await,
            };
            match sent {
                Sent::Acknowledged => self.acknowledged += 1,
                Sent::Refused => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                Sent::Gone => return Done { model: self.model, acknowledged: self.acknowledged },
            }
        }
    }

    fn keys(&mut self, most: usize) -> Vec<u64> {
        let n = self.rng.random_range(1..=most);
        let mut keys: Vec<u64> = (0..n).map(|_| self.rng.random_range(0..KEYS)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    async fn upsert(&mut self) -> Sent {
        let keys = self.keys(BATCH_MAX);
        let (writer, serial) = (self.model.writer, self.model.next_serial);
        self.model.next_serial += 1;
        let points: Vec<Value> = keys
            .iter()
            .map(|key| {
                let (vector, payload) = (vector(writer, serial, *key), payload(writer, serial, *key));
                json!({"id": self.model.id(*key), "vector": vector, "payload": payload})
            })
            .collect();
        self.write(Method::PUT, "", json!({"points": points}), &keys, Some(serial)).await
    }

    async fn delete(&mut self) -> Sent {
        let keys = self.keys(16);
        let ids: Vec<Value> = keys.iter().map(|key| self.model.id(*key)).collect();
        self.write(Method::POST, "/delete", json!({"points": ids}), &keys, None).await
    }

    async fn delete_group(&mut self) -> Sent {
        let group = self.rng.random_range(0..GROUPS);
        let keys: Vec<u64> = Model::group(group).collect();
        let condition = |key: &str, value: u64| json!({"key": key, "match": {"value": value}});
        let filter = json!({"must": [condition("writer", self.model.writer), condition("group", group)]});
        self.write(Method::POST, "/delete", json!({"filter": filter}), &keys, None).await
    }

    async fn write(&mut self, method: Method, path: &str, body: Value, keys: &[u64], state: Option<u64>) -> Sent {
        self.model.begin(keys, state);
        let path = format!("/collections/crash/points{path}?wait=true");
        match self.rest.call(method, &path, &body).await {
            Err(_) => Sent::Gone,
            Ok(answer) if answer.status == 200 => {
                self.model.acknowledge(keys, state);
                Sent::Acknowledged
            }
            Ok(answer) if [429, 503].contains(&answer.status) => Sent::Refused,
            Ok(answer) => panic!("a right write was answered {}: {}", answer.status, answer.body),
        }
    }

    /// Reads its own acknowledged writes while the server runs.
    async fn read(&mut self) -> Sent {
        let keys = self.keys(32);
        let ids: Vec<Value> = keys.iter().map(|key| self.model.id(*key)).collect();
        let body = json!({"ids": ids, "with_payload": true});
        let answer = self.rest.call(Method::POST, "/collections/crash/points", &body).await;
        let answer = match answer {
            Err(_) => return Sent::Gone,
            Ok(answer) if [429, 503].contains(&answer.status) => return Sent::Refused,
            Ok(answer) => answer.result(),
        };
        let points = answer.as_array().expect("points");
        for key in keys {
            let Some(state) = self.model.certain(key) else { continue };
            let id = self.model.id(key);
            let point = points.iter().find(|point| point["id"] == id);
            let read = point.map(|point| point["payload"]["serial"].as_u64().expect("every point has a serial"));
            assert_eq!(read, state, "id {id} was read differently from what was acknowledged");
        }
        Sent::Acknowledged
    }
}
