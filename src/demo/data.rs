//! The demo's pictures, unpacked from the binary as they are needed. The layout is described in `data/README.md`.

use std::fmt::Write;
use std::io::Read;

use anyhow::Context;
use flate2::read::GzDecoder;

/// Pictures.
pub(super) const ROWS: usize = 10_000;
/// Width and height of a picture, in pixels.
pub(super) const SIDE: usize = 28;
/// Pixels of a picture, which is the dimension of its vector.
pub(super) const DIM: usize = SIDE * SIDE;

static IMAGES: &[u8] = include_bytes!("data/images.gz");
static LABELS: &[u8] = include_bytes!("data/labels.gz");

/// Names of the classes, by number.
const CLASSES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

/// One picture.
pub(super) struct Image {
    /// Its place in the data set, which becomes its id.
    row: usize,
    class: u8,
    pixels: Vec<u8>,
}

impl Image {
    /// Appends the point that stands for it as JSON: the grey values as they are, and its label as payload. Written by
    /// hand, because a tree of values would take thirty times the memory of the picture.
    pub(super) fn push_point(&self, body: &mut String) {
        let Image { row, class, pixels } = self;
        let label = CLASSES[usize::from(*class)];
        // Writing to a String cannot fail.
        let _ = write!(body, r#"{{"id":{row},"payload":{{"label":"{label}","class":{class},"row":{row}}},"vector":["#);
        for (i, grey) in pixels.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let _ = write!(body, "{comma}{grey}");
        }
        body.push_str("]}");
    }
}

/// Reads the pictures in order, a batch at a time, so that they are never all in memory.
pub(super) struct Images {
    pixels: GzDecoder<&'static [u8]>,
    labels: GzDecoder<&'static [u8]>,
    next_row: usize,
}

impl Images {
    /// Begins with the first picture.
    pub(super) fn open() -> anyhow::Result<Images> {
        Ok(Images { pixels: GzDecoder::new(IMAGES), labels: GzDecoder::new(LABELS), next_row: 0 })
    }

    /// The next pictures, at most `n`; none at the end.
    pub(super) fn next_batch(&mut self, n: usize) -> anyhow::Result<Vec<Image>> {
        let n = n.min(ROWS - self.next_row);
        let mut batch = Vec::with_capacity(n);
        for _ in 0..n {
            let (mut class, mut pixels) = ([0], vec![0; DIM]);
            self.labels.read_exact(&mut class).context("the labels in this binary are damaged")?;
            self.pixels.read_exact(&mut pixels).context("the pictures in this binary are damaged")?;
            batch.push(Image { row: self.next_row, class: class[0], pixels });
            self.next_row += 1;
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn all_pictures_unpack_and_every_class_has_a_thousand() {
        let mut images = Images::open().unwrap();
        let (mut rows, mut per_class) = (0, [0; 10]);
        loop {
            let batch = images.next_batch(512).unwrap();
            if batch.is_empty() {
                break;
            }
            for image in &batch {
                assert_eq!(image.row, rows);
                assert!(image.pixels.iter().any(|pixel| *pixel > 0), "picture {rows} is empty");
                per_class[usize::from(image.class)] += 1;
                rows += 1;
            }
        }
        assert_eq!((rows, per_class), (ROWS, [1_000; 10]));
        // Nothing is left behind the last picture.
        assert_eq!(images.pixels.read(&mut [0]).unwrap() + images.labels.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_point_carries_label_class_and_row() {
        let image = Images::open().unwrap().next_batch(1).unwrap().remove(0);
        let mut body = String::new();
        image.push_point(&mut body);
        let point: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(point["id"], json!(0));
        assert_eq!(point["payload"], json!({"label": "Ankle boot", "class": 9, "row": 0}));
        assert_eq!(point["vector"].as_array().unwrap().len(), DIM);
    }
}
