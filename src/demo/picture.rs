//! Small pictures made of characters: 28 x 28 grey values on 14 columns and 7 lines, so that six fit side by side.

use super::data::{DIM, SIDE};

/// Columns of a picture.
pub(super) const COLUMNS: usize = SIDE / 2;
/// Lines of a picture.
pub(super) const LINES: usize = SIDE / 4;

/// A quarter of a character is inked from this share of the picture's mean grey on (in percent), within these bounds: a
/// dark coat has to show its shape as a white shirt does.
const INKED_PERCENT: u32 = 35;
const INKED_MIN: u32 = 16;
const INKED_MAX: u32 = 55;
/// A quarter character covers 2 pixels in height and 1 in width.
const QUARTER_PIXELS: u32 = 2;
/// Characters by inked quarters: bit 0 upper left, bit 1 upper right, bit 2 lower left, bit 3 lower right.
const OUTLINE: [char; 16] = [' ', '▘', '▝', '▀', '▖', '▌', '▞', '▛', '▗', '▚', '▐', '▜', '▄', '▙', '▟', '█'];

/// Draws a vector of 784 grey values. Edges keep the shape of their quarters; the inside shows how bright it is.
///
/// # Panics
/// When `pixels` has another length.
pub(super) fn draw(pixels: &[f32]) -> Vec<String> {
    assert_eq!(pixels.len(), DIM, "a picture has {DIM} pixels");
    let (lit, sum) = pixels.iter().filter(|grey| **grey > 0.0).fold((0, 0.0), |(n, sum), grey| (n + 1, sum + grey));
    let mean = if lit == 0 { 0 } else { (sum / lit as f32) as u32 };
    let inked_from = (mean * INKED_PERCENT / 100).clamp(INKED_MIN, INKED_MAX);
    (0..LINES).map(|line| (0..COLUMNS).map(|column| cell(pixels, inked_from, line, column)).collect()).collect()
}

fn cell(pixels: &[f32], inked_from: u32, line: usize, column: usize) -> char {
    let grey = |y: usize, x: usize| pixels[y * SIDE + x].clamp(0.0, 255.0) as u32;
    let quarter = |quarter: usize| {
        let (y, x) = (line * 4 + quarter / 2 * 2, column * 2 + quarter % 2);
        (grey(y, x) + grey(y + 1, x)) / QUARTER_PIXELS
    };
    let quarters = [quarter(0), quarter(1), quarter(2), quarter(3)];
    let inked = quarters.iter().enumerate().fold(0, |bits, (i, grey)| bits | (usize::from(*grey >= inked_from) << i));
    if inked < 15 {
        return OUTLINE[inked];
    }
    match quarters.iter().sum::<u32>() / 4 {
        0..60 => '░',
        60..110 => '▒',
        110..170 => '▓',
        _ => '█',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_and_full_pictures() {
        assert!(draw(&[0.0; DIM]).iter().all(|line| line.chars().all(|c| c == ' ')));
        let full = draw(&[255.0; DIM]);
        assert_eq!(full.len(), LINES);
        assert!(full.iter().all(|line| line.chars().count() == COLUMNS && line.chars().all(|c| c == '█')));
    }

    #[test]
    fn a_quarter_lands_where_its_pixels_are() {
        let mut pixels = [0.0; DIM];
        // Rows 2 and 3, column 1: the lower right quarter of the first character.
        (pixels[2 * SIDE + 1], pixels[3 * SIDE + 1]) = (255.0, 255.0);
        let picture = draw(&pixels);
        assert_eq!(picture[0].chars().next(), Some('▗'));
        assert_eq!(picture[0].trim_end().chars().count(), 1);
    }
}
