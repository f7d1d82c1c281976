//! Which routes count as what, and how filters are measured.

use serde_json::{Value, json};

use super::*;

#[test]
fn routes_read_or_write_or_do_not_count() {
    let of = |method: Method, rest: &str| kind(&method, &format!("/collections/{{collection}}{rest}"));
    for (method, rest) in [
        (Method::GET, "/points/{id}"),
        (Method::POST, "/points"),
        (Method::POST, "/points/query"),
        (Method::POST, "/points/query/batch"),
        (Method::POST, "/points/search/matrix/pairs"),
        (Method::POST, "/points/scroll"),
        (Method::POST, "/facet"),
    ] {
        assert_eq!(of(method.clone(), rest), Some(Kind::Read), "{method} {rest}");
    }
    for (method, rest) in [
        (Method::PUT, "/points"),
        (Method::PUT, "/points/vectors"),
        (Method::PUT, "/points/payload"),
        (Method::POST, "/points/payload/clear"),
        (Method::POST, "/points/vectors/delete"),
        (Method::POST, "/points/delete"),
        (Method::POST, "/points/batch"),
        (Method::PUT, "/index"),
        (Method::DELETE, "/index/{field}"),
    ] {
        assert_eq!(of(method.clone(), rest), Some(Kind::Write), "{method} {rest}");
    }
    for (method, rest) in [(Method::GET, ""), (Method::GET, "/cluster"), (Method::PATCH, ""), (Method::GET, "/pointsx")]
    {
        assert_eq!(of(method.clone(), rest), None, "{method} {rest}");
    }
    assert_eq!(kind(&Method::GET, "/collections"), None);
}

#[test]
fn a_timeout_is_found_however_it_is_written() {
    for (uri, expected) in [
        ("/c", None),
        ("/c?wait=true", None),
        ("/c?timeout=3", Some(3)),
        ("/c?timeout=1&wait=true&timeout=9", Some(9)),
        ("/c?time%6Fut=5", Some(5)),
        ("/c?timeout=-1", None),
    ] {
        assert_eq!(timeout(&uri.parse().unwrap()), expected, "{uri}");
    }
}

#[test]
fn filters_are_measured_on_all_levels() {
    let size = |filter: Value| {
        let mut size = FilterSize::default();
        size.add(&serde_json::from_value(filter).unwrap());
        (size.conditions, size.largest)
    };
    assert_eq!(size(json!({})), (0, 0));
    let any = |values: Value| json!({"key": "a", "match": {"any": values}});
    assert_eq!(size(json!({"must": [any(json!([1, 2, 3])), {"key": "b", "match": {"value": 1}}]})), (2, 3));
    let nested = json!({"nested": {"key": "a", "filter": {"must": [any(json!(["x"])), {"has_id": [1, 2]}]}}});
    assert_eq!(size(json!({"should": [nested], "must_not": [{"is_null": {"key": "a"}}]})), (3, 2));
    let inner = json!({"must": [{"should": [any(json!([1, 2, 3, 4]))]}]});
    assert_eq!(size(json!({"min_should": {"conditions": [inner], "min_count": 1}})), (1, 4));
}
