//! What full-text conditions mean, how they are written, and what fixes their meaning.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::*;
use crate::error::Error;
use crate::payload_index::{FieldType, PayloadIndex, PayloadIndexes};
use crate::point::PointId;

fn tokenization(params: Value) -> Tokenization {
    Tokenization::from_json(params.as_object().unwrap()).unwrap()
}

fn matches(filter: &Filter, payload: &Value) -> bool {
    filter.matches(PointId::Num(7), payload.as_object().unwrap(), &|_| false)
}

/// Whether a condition on field `a`, with parameters, matches the value.
fn passes(test: Value, params: Value, value: Value) -> bool {
    let mut test = test;
    if params != json!({}) {
        test["tokenization"] = params;
    }
    let filter = Filter::parse(&json!({"must": {"key": "a", "match": test}})).unwrap();
    matches(&filter, &json!({"a": value}))
}

#[test]
fn tokens_are_compared_not_strings() {
    let text = "The quick Brown fox, the lazy dog";
    for (test, expected) in [
        (json!({"text": "fox BROWN"}), true),
        (json!({"text": "fox fox"}), true),
        (json!({"text": "fox wolf"}), false),
        (json!({"text": "qui"}), false),
        (json!({"text": ""}), false),
        (json!({"text": " ,- "}), false),
        (json!({"text_any": "wolf dog"}), true),
        (json!({"text_any": "wolf do"}), false),
        (json!({"text_any": ""}), false),
        (json!({"phrase": "quick brown"}), true),
        (json!({"phrase": "fox the lazy"}), true),
        (json!({"phrase": "the the"}), false),
        (json!({"phrase": "brown quick"}), false),
        (json!({"phrase": "quick fox"}), false),
        (json!({"phrase": "dog"}), true),
        (json!({"phrase": "dog dog"}), false),
        (json!({"phrase": "!"}), false),
    ] {
        assert_eq!(passes(test.clone(), json!({}), json!(text)), expected, "{test}");
    }
}

#[test]
fn each_string_is_a_text_of_its_own() {
    let test = json!({"text": "red car"});
    assert!(passes(test.clone(), json!({}), json!(["a bus", "a car, red", 1])));
    assert!(!passes(test.clone(), json!({}), json!(["red bus", "blue car"])));
    for value in [json!(1), json!(null), json!([]), json!({"red": "car"}), json!([["red car"]]), json!("")] {
        assert!(!passes(test.clone(), json!({}), value.clone()), "{value}");
    }
    assert!(!passes(json!({"phrase": "red car"}), json!({}), json!(["a red", "car"])));
}

#[test]
fn parameters_shape_query_and_text_alike() {
    let english =
        json!({"stopwords": {"languages": ["english"]}, "stemmer": {"type": "snowball", "language": "english"}});
    let prefix = json!({"tokenizer": "prefix", "min_token_len": 2, "max_token_len": 4});
    for (test, params, value, expected) in [
        (json!({"text": "the runner's running"}), english.clone(), "runners run", true),
        (json!({"text": "the"}), english.clone(), "the", false),
        (json!({"phrase": "house on the hill"}), english, "a house near no hill: houses, hills", true),
        (json!({"text": "al be"}), prefix.clone(), "Alpha Beta", true),
        (json!({"text": "al a"}), prefix.clone(), "Alpha", true),
        (json!({"text": "alphabet"}), prefix.clone(), "Alphorn", true),
        (json!({"text": "alp alph"}), prefix.clone(), "Alphorn", true),
        (json!({"text": "lph"}), prefix.clone(), "Alphorn", false),
        (json!({"text_any": "a b"}), prefix.clone(), "a b", false),
        (json!({"phrase": "br fo"}), prefix.clone(), "quick brown foxes", true),
        (json!({"phrase": "fo br"}), prefix, "quick brown foxes", false),
        (json!({"text": "Fox"}), json!({"lowercase": false}), "fox", false),
        (json!({"text": "fox"}), json!({"tokenizer": "whitespace"}), "fox, dog", false),
        (json!({"phrase": "東京"}), json!({"tokenizer": "multilingual"}), "日本の東京タワー", true),
        (json!({"phrase": "京東"}), json!({"tokenizer": "multilingual"}), "日本の東京タワー", false),
        (json!({"text": "creme"}), json!({"ascii_folding": true}), "Crème brûlée", true),
        (json!({"text": "ab abcd"}), json!({"max_token_len": 3}), "ab", true),
    ] {
        assert_eq!(passes(test.clone(), params.clone(), json!(value)), expected, "{test} {params} {value}");
    }
}

#[test]
fn an_index_of_the_field_says_how_its_texts_are_cut() {
    let text = |params| PayloadIndex::text(tokenization(params));
    let indexes: PayloadIndexes = [
        ("a".to_owned(), text(json!({"tokenizer": "prefix"}))),
        ("n[].a".to_owned(), text(json!({"lowercase": false}))),
        ("b".to_owned(), PayloadIndex::from(FieldType::Keyword)),
        ("c".to_owned(), PayloadIndex::from(FieldType::Text)),
    ]
    .into();
    let on = |key: &str| json!({"key": key, "match": {"text": "Fo"}});
    let resolved = |filter: Value| {
        let mut filter = Filter::parse(&filter).unwrap();
        TextResolver::new(&indexes).resolve(&mut filter).unwrap();
        filter
    };
    for (key, params) in [("a", json!({"tokenizer": "prefix"})), ("a[]", json!({})), ("b", json!({})), ("c", json!({}))]
    {
        let filter = resolved(json!({"must": [{"should": [on(key)]}]}));
        let mut expected = json!({"must": [{"should": [on(key)]}]});
        if params != json!({}) {
            expected["must"][0]["should"][0]["match"]["tokenization"] = params;
        }
        assert_eq!(serde_json::to_value(&filter).unwrap(), expected);
        let again: Filter = serde_json::from_value(expected).unwrap();
        assert_eq!(again, filter);
        assert_eq!(matches(&again, &json!({key: "foo"})), key == "a");
    }
    let nested = resolved(json!({"must_not": {"nested": {"key": "n", "filter": {"must": on("a")}}}}));
    assert!(matches(&nested, &json!({"n": [{"a": "fo"}]})) && !matches(&nested, &json!({"n": [{"a": "Fo"}]})));
    let some = json!({"min_should": {"conditions": [on("a")], "min_count": 1}});
    assert!(matches(&resolved(some), &json!({"a": "foo"})));
}

#[test]
fn what_is_not_for_requests_is_refused() {
    let with = |extra: Value| json!({"must": {"key": "a", "match": extra}});
    let params = json!({"tokenizer": "prefix"});
    let mut filter = Filter::parse(&with(json!({"text": "x", "tokenization": params}))).unwrap();
    let refused = TextResolver::new(&PayloadIndexes::new()).resolve(&mut filter).unwrap_err();
    assert!(
        matches!(&refused, Error::BadInput(text) if text.contains("`tokenization` of a condition on `a`")),
        "{refused}"
    );
    for (test, part) in [
        (json!({"value": "x", "tokenization": params}), "filter.must.match: `tokenization` is only for text"),
        (json!({"text": 1}), "filter.must.match.text: expected a string"),
        (json!({"phrase": "x".repeat(8_193)}), "filter.must.match.phrase: at most 8192 bytes, got 8193"),
        (json!({"text": "x", "text_any": "x"}), "exactly one of value, any, except, prefix, text, text_any, phrase"),
        (
            json!({"text": "x", "tokenization": {"tokenizer": "x"}}),
            "match.tokenization.tokenizer: expected one of word",
        ),
        (json!({"text": "x", "tokenization": {"y": 1}}), "match.tokenization: unknown field `y`"),
    ] {
        let error = Filter::parse(&with(test)).unwrap_err();
        assert!(matches!(&error, Error::BadInput(text) if text.contains(part)), "{error} should contain {part}");
    }
}

/// So many full-text conditions on a field, in lists and filters of all kinds.
fn texts(key: &str, count: usize) -> Filter {
    let condition = json!({"key": key, "match": {"text": "x"}});
    let nested = json!({"nested": {"key": "n", "filter": {"must_not": condition}}});
    let inner = json!({"should": [{"must": condition}], "min_should": {"min_count": 1, "conditions": [condition]}});
    let others = vec![condition.clone(); count - 3];
    Filter::parse(&json!({"must": [nested, inner], "should": others})).unwrap()
}

/// An index whose parameters take about 10 KB in JSON.
fn long_index() -> PayloadIndex {
    let words: Vec<String> = (0..1_000).map(|n| format!("word{n}")).collect();
    PayloadIndex::text(tokenization(json!({"stopwords": {"custom": words}})))
}

#[test]
fn long_parameters_are_bounded_over_a_request() {
    let indexes: PayloadIndexes = [("a".to_owned(), long_index()), ("n[].a".to_owned(), long_index())].into();
    let refused =
        |result: Result<(), Error>| matches!(result, Err(Error::BadInput(text)) if text.contains("4194304 bytes"));
    TextResolver::new(&indexes).resolve(&mut texts("a", 200)).unwrap();
    // As a batch, a prefetch or a formula brings them: each small enough by itself.
    let mut resolver = TextResolver::new(&indexes);
    let accepted = (0..1_000).take_while(|_| !refused(resolver.resolve(&mut texts("a", 10)))).count();
    assert!((20..80).contains(&accepted), "{accepted} filters of 10 conditions");
    // Conditions without parameters cost nothing.
    (0..100).for_each(|_| resolver.resolve(&mut texts("b", 256)).unwrap());
}

#[test]
fn conditions_on_a_field_share_what_cuts_its_texts() {
    let indexes: PayloadIndexes = [("a".to_owned(), long_index())].into();
    let mut resolver = TextResolver::new(&indexes);
    let mut filters = [texts("a", 10), texts("a", 10)];
    filters.iter_mut().for_each(|filter| resolver.resolve(filter).unwrap());
    let tests = filters.iter().flat_map(|filter| &filter.should).map(|condition| match condition {
        Condition::Field(FieldCondition { test: FieldTest::Match(Match::Text(test)), .. }) => test,
        other => panic!("{other:?}"),
    });
    let tokenizers: Vec<&Arc<Tokenizer>> = tests.map(|test| &test.tokenizer).collect();
    assert_eq!(tokenizers.len(), 14);
    assert!(tokenizers.iter().all(|tokenizer| Arc::ptr_eq(tokenizer, tokenizers[0])));
}

#[test]
fn full_text_conditions_are_few_in_a_clients_filter_and_any_number_in_a_log() {
    let indexes = PayloadIndexes::new();
    let mut resolver = TextResolver::new(&indexes);
    for _ in 0..3 {
        resolver.resolve(&mut texts("a", 256)).unwrap();
    }
    let mut many = texts("a", 257);
    let refused = resolver.resolve(&mut many).unwrap_err();
    assert!(matches!(&refused, Error::BadInput(text) if text.contains("more than 256 full-text")), "{refused}");
    // What an older program accepted is still read and decided.
    let logged: Filter = serde_json::from_value(serde_json::to_value(texts("a", 1_000)).unwrap()).unwrap();
    assert!(matches(&logged, &json!({"a": "x", "n": [{"a": "y"}]})));
    assert!(!matches(&logged, &json!({"a": "y"})));
}

proptest! {
    /// Against the plainest model: all tokens of both texts side by side.
    #[test]
    fn a_model_agrees(
        query in "[aBc .]{0,8}",
        text in "[aBc .]{0,14}",
        split in prop::sample::select(Split::ALL.to_vec()),
        lengths in prop::option::of((1u32..3, 3u32..5)),
        lowercase: bool,
    ) {
        let params = Tokenization {
            split,
            min_token_len: lengths.map(|(min, _)| min).filter(|min| *min > 1),
            max_token_len: lengths.map(|(_, max)| max),
            lowercase,
            ..Tokenization::default()
        };
        let tokenizer = Arc::new(Tokenizer::new(params));
        let (wanted, found) = (tokenizer.tokens(&query), tokenizer.tokens(&text));
        let is = |word: &String, token: &String| match split {
            Split::Prefix => token.starts_with(word.as_str()),
            Split::Word | Split::Whitespace | Split::Multilingual => token == word,
        };
        let is_there = |word: &String| found.iter().any(|token| is(word, token));
        for test in TextTest::ALL {
            let expected = !wanted.is_empty() && match test {
                TextTest::All => wanted.iter().all(is_there),
                TextTest::Any => wanted.iter().any(is_there),
                TextTest::Phrase => found.windows(wanted.len()).any(|w| w.iter().zip(&wanted).all(|(t, w)| is(w, t))),
            };
            let condition = TextMatch::new(test, query.clone(), Arc::clone(&tokenizer));
            prop_assert_eq!(condition.holds(&text), expected, "{:?} {:?} {:?}", test, wanted, found);
        }
    }
}
