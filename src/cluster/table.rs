//! Tables for a terminal: columns as wide as their widest cell, numbers to the right.

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Blanks between two columns.
const GAP: &str = "  ";
/// What stands in a cell of which nothing is known.
pub(super) const UNKNOWN: &str = "-";

/// Lays out rows under their header. Every row has as many cells as the header; a last column without any text is left
/// out, header and all.
pub(super) fn table(header: &[(&str, Side)], rows: &[Vec<String>]) -> String {
    let is_used = |column: usize| column + 1 < header.len() || rows.iter().any(|row| !row[column].is_empty());
    let columns: Vec<usize> = (0..header.len()).filter(|column| is_used(*column)).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].0.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cell: &dyn Fn(usize) -> String| {
        let cells = columns.iter().map(|column| match header[*column].1 {
            Side::Left => format!("{:<1$}", cell(*column), widths[*column]),
            Side::Right => format!("{:>1$}", cell(*column), widths[*column]),
        });
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned() + "\n"
    };
    let mut text = line(&|column| header[column].0.to_owned());
    for row in rows {
        text += &line(&|column| row[column].clone());
    }
    text
}

/// A number, if it is known, with its thousands apart: `12 345`.
pub(super) fn number(value: Option<u64>) -> String {
    let Some(value) = value else { return UNKNOWN.to_owned() };
    let digits = value.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A size, if it is known, in the largest unit that leaves a number of at least 1.
pub(super) fn size(bytes: Option<u64>) -> String {
    let Some(bytes) = bytes else { return UNKNOWN.to_owned() };
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1_024.0 {
            break;
        }
        (value, unit) = (value / 1_024.0, larger);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_last_ones_left_out() {
        let header = [("name", Side::Left), ("points", Side::Right), ("note", Side::Left)];
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["n1", "7", ""]), row(["a longer one", "1 000 000", ""])];
        assert_eq!(
            table(&header, &rows),
            "name             points\n\
             n1                    7\n\
             a longer one  1 000 000\n"
        );
        let rows = [row(["n1", "7", ""]), row(["n2", "-", "it is down"])];
        assert_eq!(table(&header, &rows), "name  points  note\nn1         7\nn2         -  it is down\n");
        assert_eq!(table(&header, &[]), "name  points\n");
    }

    #[test]
    fn numbers_and_sizes_are_easy_to_read() {
        let numbers = [0, 999, 1_000, 1_234_567].map(|value| number(Some(value)));
        assert_eq!(numbers, ["0", "999", "1 000", "1 234 567"]);
        let sizes = [0, 1_023, 1_024, 5 << 20, 1 << 40].map(|bytes| size(Some(bytes)));
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "5.0 MiB", "1.0 TiB"]);
        assert_eq!((number(None), size(None)), ("-".to_owned(), "-".to_owned()));
    }
}
