//! Bodies are whole, within the limit, and what is wrong with them is told by field and place.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use futures::stream;
use serde::de::DeserializeOwned;

use super::super::decode::{QueryBody, UpsertBody};
use super::{BODY_BYTES_MAX, DISCARD_BYTES_MAX, parse, receive};

#[test]
fn errors_name_the_field_and_the_place() {
    fn text<T: DeserializeOwned>(body: &str) -> String {
        let text = parse::<T>(body.as_bytes()).map(drop).unwrap_err().text;
        text.strip_prefix("Format error in JSON body: ").unwrap_or(&text).to_owned()
    }
    for (body, expected) in [
        (r#"{"query":[1,"a"]}"#, r#"query[1]: invalid type: string "a", expected a number at line 1 column 15"#),
        (r#"{"query":[1,[2]]}"#, "query[1]: expected a number, got a list at line 1 column 16"),
        (
            r#"{"query":[[1],2]}"#,
            "query: a vector is a list of numbers, or a list of such lists, not both at line 1 column 16",
        ),
        (r#"{"query":[1,]}"#, "trailing comma at line 1 column 13"),
        (r#"{"query":[1,2"#, "EOF while parsing a list at line 1 column 13"),
        (r#"{"query":[01]}"#, "invalid number at line 1 column 12"),
        (r#"{"query":[1e400]}"#, "number out of range at line 1 column 15"),
        (r#"{"query":[1.]}"#, "invalid number at line 1 column 13"),
        (r#"{"query":[1]} 2"#, "trailing characters at line 1 column 15"),
        (
            r#"{"query":{"indices":[1,-2],"values":[1,2]}}"#,
            "query.indices[1]: invalid value: integer `-2`, expected u32 at line 1 column 25",
        ),
        (
            r#"{"query":{"indices":[1],"values":[1,null]}}"#,
            "query.values[1]: invalid type: null, expected a number at line 1 column 40",
        ),
    ] {
        assert_eq!(text::<QueryBody>(body), expected, "{body}");
    }
    for (body, expected) in [
        (
            r#"{"points":[{"id":1,"vector":[0.5,null]}]}"#,
            "points[0].vector[1]: invalid type: null, expected a number at line 1 column 37",
        ),
        (
            r#"{"points":[{"id":1,"vector":[0.5]},{"id":2,"vector":{"a":[1,true]}}]}"#,
            "points[1].vector.a[1]: invalid type: boolean `true`, expected a number at line 1 column 64",
        ),
    ] {
        assert_eq!(text::<UpsertBody>(body), expected, "{body}");
    }
}

/// A request whose body comes in pieces.
fn in_pieces(pieces: Vec<Bytes>) -> Request {
    Request::new(Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, Infallible>))))
}

#[tokio::test]
async fn a_body_is_whole_and_not_copied_where_it_comes_at_once() {
    let piece = Bytes::from(b"{\"limit\":1}".to_vec());
    let at_once = receive(in_pieces(vec![Bytes::new(), piece.clone()]), piece.len()).await.unwrap();
    assert_eq!((at_once.as_ptr(), at_once.len()), (piece.as_ptr(), piece.len()));
    for announced in [0, 4, 12] {
        let pieces = ["{\"li", "", "mit\"", ":1}"].map(|piece| Bytes::from_static(piece.as_bytes()));
        assert_eq!(receive(in_pieces(pieces.to_vec()), announced).await.unwrap(), piece);
    }
    assert_eq!(receive(in_pieces(Vec::new()), 0).await.unwrap(), Bytes::new());
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_however_it_comes() {
    let piece = Bytes::from(vec![b' '; BODY_BYTES_MAX / 2 + 1]);
    let whole = Bytes::from(vec![b' '; BODY_BYTES_MAX + 1]);
    let endless = vec![whole.clone(); DISCARD_BYTES_MAX / BODY_BYTES_MAX + 2];
    for pieces in
        [vec![piece.clone(), piece.clone()], vec![whole.clone()], vec![piece.clone(), piece.clone(), piece], endless]
    {
        let failure = receive(in_pieces(pieces), 0).await.unwrap_err();
        assert_eq!(failure.status.as_u16(), 413, "{}", failure.text);
    }
}
