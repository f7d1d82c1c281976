//! The edge of a cluster in trouble: sessions, pauses that clients are asked for, and the bound on requests.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use vicinal_common::ids::NodeId;
use vicinal_common::limits::REQUESTS_IN_FLIGHT_MAX;

use super::{C, Edge, filled};

const COUNT: &str = "/collections/c/points/count";

/// Sends a JSON body with a session, and returns status, body, and the session and pause of the answer.
async fn post(
    edge: &Edge,
    path: &str,
    session: Option<&str>,
    body: Value,
) -> (u16, Value, Option<String>, Option<String>) {
    let mut request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    if let Some(session) = session {
        request = request.header("x-vicinal-session", session);
    }
    let (status, body, headers) = edge.send(request.body(Body::from(body.to_string())).unwrap()).await;
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    (status.as_u16(), body, text("x-vicinal-session"), text("retry-after"))
}

#[tokio::test]
async fn a_session_is_given_with_reads_and_writes_and_taken_back() {
    let edge = filled().await;
    let (status, _, session, _) = post(&edge, COUNT, None, json!({})).await;
    let session = session.unwrap();
    assert_eq!(status, 200);
    let delete = json!({"points": [3]});
    let (status, _, written, _) = post(&edge, "/collections/c/points/delete", Some(&session), delete).await;
    let written = written.unwrap();
    assert_eq!(status, 200);
    assert_ne!(session, written, "it has seen the delete");
    let (status, answer, again, _) = post(&edge, COUNT, Some(&written), json!({})).await;
    assert_eq!((status, &answer["result"], again), (200, &json!({"count": 19}), Some(written.clone())));

    for broken in ["", "x", "not a token", &written[1..], &format!("{written}A")] {
        let (status, answer, none, _) = post(&edge, COUNT, Some(broken), json!({})).await;
        let text = answer["status"]["error"].as_str().unwrap();
        assert!(status == 400 && text.contains("x-vicinal-session") && none.is_none(), "{broken}: {answer}");
    }

    // The same name, another collection: what was seen of the old one means nothing.
    edge.ok("DELETE", C, Value::Null).await;
    edge.ok("PUT", C, json!({"vectors": {"size": 2, "distance": "Euclid"}})).await;
    let (status, answer, fresh, _) = post(&edge, COUNT, Some(&written), json!({})).await;
    assert_eq!((status, &answer["result"]), (200, &json!({"count": 0})));
    assert_ne!(fresh, Some(written));
}

#[tokio::test]
async fn the_session_stays_one_of_the_collection_that_is_searched() {
    let edge = filled().await;
    edge.ok("PUT", "/collections/d", json!({"vectors": {"size": 2, "distance": "Dot"}})).await;
    let records: Vec<Value> = (0..20).map(|id| json!({"id": id, "vector": [1, 0], "payload": {"r": id}})).collect();
    edge.ok("PUT", "/collections/d/points", json!({"points": records})).await;
    let (status, _, expected, _) = post(&edge, COUNT, None, json!({})).await;
    assert_eq!(status, 200);
    for records in ["d", "c"] {
        let body = json!({"query": [3, 0], "group_by": "n", "with_lookup": records});
        for session in [None, expected.as_deref()] {
            let (status, answer, given, _) =
                post(&edge, "/collections/c/points/query/groups", session, body.clone()).await;
            assert_eq!(status, 200, "{answer}");
            assert_eq!(answer["result"]["groups"][0]["lookup"]["id"], 3, "{answer}");
            assert_eq!(given, expected, "{records}");
        }
    }
}

#[tokio::test]
async fn clients_are_told_when_to_come_back() {
    let edge = filled().await;
    let all = || (1..=3).map(NodeId);
    edge.model.lock().overloaded.extend(all());
    let (status, answer, _, pause) = post(&edge, COUNT, None, json!({})).await;
    assert_eq!((status, pause.as_deref()), (429, Some("1")), "{answer}");
    edge.model.lock().overloaded.clear();
    edge.model.lock().dead.extend(all());
    let (status, answer, _, pause) = post(&edge, COUNT, None, json!({})).await;
    assert_eq!((status, pause.as_deref()), (503, Some("1")), "{answer}");
    edge.model.lock().dead.clear();
    let (status, _, _, pause) = post(&edge, COUNT, None, json!({})).await;
    assert_eq!((status, pause), (200, None));
}

#[tokio::test]
async fn requests_beyond_the_bound_are_refused_at_once_and_health_is_not() {
    let edge = filled().await;
    let places = u32::try_from(REQUESTS_IN_FLIGHT_MAX).unwrap();
    let held = edge.coordinator.admission.clone().try_acquire_many_owned(places).unwrap();
    let (status, answer, _, pause) = post(&edge, COUNT, None, json!({})).await;
    assert_eq!((status, pause.as_deref()), (429, Some("1")), "{answer}");
    assert!(answer["status"]["error"].as_str().unwrap().contains("1024 requests"), "{answer}");
    assert_eq!(edge.coordinator.shards.health.counters().refused(), 1);
    for path in ["/healthz", "/livez", "/readyz"] {
        let (status, _, _) = edge.send(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{path}");
    }
    drop(held);
    assert_eq!(post(&edge, COUNT, None, json!({})).await.0, 200);
}
