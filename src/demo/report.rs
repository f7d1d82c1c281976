//! What the demo shows: a few searches with pictures, then how to ask for more.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use super::{COLLECTION, Loaded, data, picture};
use crate::rest::Rest;

/// Neighbours shown per search.
const NEIGHBOURS: usize = 5;
/// Blanks between two pictures.
const GAP: &str = "  ";

/// One search of the demo.
struct Search {
    /// The picture to start from.
    row: usize,
    /// Only pictures with this label.
    only: Option<&'static str>,
}

const SEARCHES: [Search; 4] = [
    Search { row: 0, only: None },
    Search { row: 18, only: None },
    Search { row: 6, only: None },
    Search { row: 23, only: Some("Sneaker") },
];

/// Runs the searches and prints them to stdout. Someone who closed stdout does not want to see it: no error.
pub(super) async fn print(rest: &Rest, url: &str, loaded: &Loaded, indexed: Duration) -> anyhow::Result<()> {
    let mut text = match loaded {
        Loaded::Found => format!("\nThe demo data was here already: {} pictures of clothes.\n", data::ROWS),
        Loaded::Uploaded(time) => format!(
            "\nLoaded {} pictures of clothes in {:.1} s, index ready {:.1} s later.\n",
            data::ROWS,
            time.as_secs_f64(),
            indexed.as_secs_f64()
        ),
    };
    text += &format!("A picture is a vector of {} grey values; nearest means smallest Euclid distance.\n", data::DIM);
    for (number, search) in SEARCHES.iter().enumerate() {
        text += &show(rest, number + 1, search).await?;
    }
    text += &how_to_go_on(url);
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}

async fn show(rest: &Rest, number: usize, search: &Search) -> anyhow::Result<String> {
    let path = format!("/collections/{COLLECTION}/points");
    let query = rest.get(&format!("{path}/{}", search.row)).await?;
    let label = label_of(&query)?;
    let mut body = json!({"query": search.row, "limit": NEIGHBOURS, "with_payload": true, "with_vector": true});
    if let Some(only) = search.only {
        body["filter"] = json!({"must": [{"key": "label", "match": {"value": only}}]});
    }
    let started = Instant::now();
    let found = rest.post(&format!("{path}/query"), &body).await?;
    let time = started.elapsed();
    let hits = found["points"].as_array().context("the answer has no points")?;
    let same = hits.iter().filter(|hit| hit["payload"]["label"] == json!(label)).count();

    let what = match search.only {
        None => format!("nearest to picture {} ({label}): {same} of {} are labelled alike", search.row, hits.len()),
        Some(only) => format!("nearest to picture {} ({label}) among those labelled {only}", search.row),
    };
    let mut text = format!("\n{number}. {what}, {:.1} ms\n\n", time.as_secs_f64() * 1e3);
    let columns = std::iter::once(Ok(column(&query, "the query".to_owned())?))
        .chain(hits.iter().map(|hit| {
            let score = hit["score"].as_f64().context("a hit has no score")?;
            column(hit, format!("score {score:.1}"))
        }))
        .collect::<anyhow::Result<Vec<_>>>()?;
    text += &side_by_side(&columns);
    Ok(text)
}

fn label_of(point: &Value) -> anyhow::Result<String> {
    point["payload"]["label"].as_str().map(str::to_owned).context("a demo point has no label")
}

/// A picture with its caption beneath, all lines of one width.
fn column(point: &Value, last_line: String) -> anyhow::Result<Vec<String>> {
    let vector = point["vector"].as_array().context("a demo point has no vector")?;
    let pixels: Vec<f32> = vector.iter().filter_map(Value::as_f64).map(|grey| grey as f32).collect();
    anyhow::ensure!(pixels.len() == data::DIM, "a demo point has {} values, expected {}", pixels.len(), data::DIM);
    let mut lines = picture::draw(&pixels);
    lines.extend([label_of(point)?, format!("id {}", point["id"]), last_line]);
    Ok(lines.into_iter().map(|line| format!("{line:<width$}", width = picture::COLUMNS)).collect())
}

fn side_by_side(columns: &[Vec<String>]) -> String {
    let height = columns.iter().map(Vec::len).max().unwrap_or(0);
    let lines = (0..height).map(|line| {
        let cells: Vec<&str> = columns.iter().filter_map(|column| column.get(line)).map(String::as_str).collect();
        format!("   {}", cells.join(GAP))
    });
    // Blank lines above and below all pictures of a row say nothing.
    lines.filter(|line| !line.trim().is_empty()).map(|line| format!("{}\n", line.trim_end())).collect()
}

fn how_to_go_on(url: &str) -> String {
    let query =
        format!("curl -s {url}/collections/{COLLECTION}/points/query -H 'content-type: application/json' \\\n     -d");
    format!(
        r#"
The server is at {url} and goes on until Ctrl-C. In another terminal:

curl -s {url}/collections/{COLLECTION}

{query} '{{"query": 0, "limit": 3, "with_payload": true}}'

{query} '{{"query": 0, "limit": 3, "with_payload": true, "filter": {{"must": [{{"key": "label", "match": {{"value": "Sandal"}}}}]}}}}'

curl -s {url}/collections/{COLLECTION}/points/count -H 'content-type: application/json' \
     -d '{{"filter": {{"must": [{{"key": "class", "range": {{"gte": 8}}}}]}}}}'

"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_pictures_fit_a_hundred_columns() {
        let point = json!({"id": 9_999, "payload": {"label": "T-shirt/top"}, "vector": vec![200.0; data::DIM]});
        let columns = vec![column(&point, "score 12345.6".to_owned()).unwrap(); NEIGHBOURS + 1];
        let text = side_by_side(&columns);
        assert_eq!(text.lines().count(), picture::LINES + 3);
        assert!(text.lines().all(|line| line.chars().count() <= 100 && !line.ends_with(' ')), "{text}");
    }
}
