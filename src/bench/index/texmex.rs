//! Reads `.fvecs`, `.bvecs` and `.ivecs` files: each row is its length as a 32-bit number, then so many values of four
//! bytes (floats, integers) or one byte. All little-endian.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail, ensure};

use crate::bench::npy::{Matrix, VALUES_MAX};

/// Vectors of a `.fvecs` or `.bvecs` file, at most `rows_max`.
pub(super) fn read_vectors(path: &Path, rows_max: usize) -> anyhow::Result<Matrix<f32>> {
    match extension(path) {
        "fvecs" => read(path, rows_max, f32::from_le_bytes),
        "bvecs" => read(path, rows_max, |[byte]: [u8; 1]| f32::from(byte)),
        other => bail!("{}: files with the ending `{other}` hold no vectors (fvecs and bvecs do)", path.display()),
    }
}

/// Row numbers of an `.ivecs` file, at most `rows_max` lists.
pub(super) fn read_rows(path: &Path, rows_max: usize) -> anyhow::Result<Matrix<i32>> {
    read(path, rows_max, i32::from_le_bytes)
}

/// The ending of a file name, without the dot.
pub(super) fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

fn read<T, const N: usize>(path: &Path, rows_max: usize, convert: fn([u8; N]) -> T) -> anyhow::Result<Matrix<T>> {
    let open = || {
        let file = File::open(path)?;
        Ok::<_, std::io::Error>((file.metadata()?.len(), file))
    };
    let (file_bytes, file) = open().with_context(|| format!("cannot open {}", path.display()))?;
    read_from(BufReader::new(file), file_bytes, rows_max, convert)
        .with_context(|| format!("cannot read {}", path.display()))
}

fn read_from<T, const N: usize>(
    mut file: impl Read,
    file_bytes: u64,
    rows_max: usize,
    convert: fn([u8; N]) -> T,
) -> anyhow::Result<Matrix<T>> {
    let mut length = [0; 4];
    file.read_exact(&mut length).context("the file holds no row")?;
    let columns = i32::from_le_bytes(length);
    ensure!((1..=1 << 20).contains(&columns), "the first row says it has {columns} values");
    let columns = usize::try_from(columns)?;
    let row_bytes = 4 + columns * N;
    ensure!(
        file_bytes.is_multiple_of(row_bytes as u64),
        "{file_bytes} bytes are no whole number of rows of {columns} values ({row_bytes} bytes each)"
    );
    let rows = usize::try_from(file_bytes / row_bytes as u64)?.min(rows_max);
    ensure!(rows.checked_mul(columns).is_some_and(|n| n <= VALUES_MAX), "{rows} x {columns} is too much");
    let mut values = Vec::with_capacity(rows * columns);
    let mut row_values = vec![0; columns * N];
    for row in 0..rows {
        if row > 0 {
            file.read_exact(&mut length)?;
            let says = i32::from_le_bytes(length);
            ensure!(usize::try_from(says) == Ok(columns), "row {row} says it has {says} values, row 0 has {columns}");
        }
        file.read_exact(&mut row_values)?;
        values.extend(row_values.as_chunks().0.iter().map(|bytes| convert(*bytes)));
    }
    Ok(Matrix { columns, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(ending: &str, bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new().suffix(ending).tempfile().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn row(length: i32, values: &[u8]) -> Vec<u8> {
        [&length.to_le_bytes()[..], values].concat()
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn floats_bytes_and_row_numbers() {
        let fvecs = file(".fvecs", &[row(2, &floats(&[1.5, -2.0])), row(2, &floats(&[0.0, 7.25]))].concat());
        let read = read_vectors(fvecs.path(), 10).unwrap();
        assert_eq!((read.columns, &read.values[..]), (2, &[1.5, -2.0, 0.0, 7.25][..]));
        assert_eq!(read_vectors(fvecs.path(), 1).unwrap().values, [1.5, -2.0]);

        let bvecs = file(".bvecs", &[row(3, &[0, 1, 255]), row(3, &[7, 8, 9])].concat());
        assert_eq!(read_vectors(bvecs.path(), 10).unwrap().values, [0.0, 1.0, 255.0, 7.0, 8.0, 9.0]);

        let ivecs = file(".ivecs", &row(2, &[4, 0, 0, 0, 255, 255, 255, 255]));
        assert_eq!(read_rows(ivecs.path(), 10).unwrap().values, [4, -1]);
    }

    #[test]
    fn broken_files_are_refused_by_name_and_reason() {
        let cases: [(Vec<u8>, &str); 5] = [
            (vec![], "no row"),
            (row(-1, &[]), "says it has -1 values"),
            (row(2, &floats(&[1.0])), "no whole number of rows"),
            ([row(2, &floats(&[1.0, 2.0])), row(1, &floats(&[1.0, 2.0]))].concat(), "row 1 says it has 1 values"),
            (vec![1, 2], "no row"),
        ];
        for (bytes, reason) in cases {
            let file = file(".fvecs", &bytes);
            let error = format!("{:#}", read_vectors(file.path(), 9).unwrap_err());
            assert!(error.contains(reason) && error.contains(".fvecs"), "{error}");
        }
        assert!(read_vectors(file(".ivecs", &row(1, &[0; 4])).path(), 9).is_err());
    }
}
