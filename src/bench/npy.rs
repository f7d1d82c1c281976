//! Reads two-dimensional `.npy` arrays (format of numpy, versions 1 to 3) of the element types that vector data sets
//! come in, as 32-bit floats, and 32-bit integers for lists of neighbours.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail, ensure};

/// Rows of equal length, row-major.
#[derive(Debug, PartialEq)]
pub(super) struct Matrix<T> {
    pub(super) columns: usize,
    /// `rows * columns` values.
    pub(super) values: Vec<T>,
}

impl<T> Matrix<T> {
    pub(super) fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    pub(super) fn row(&self, row: usize) -> &[T] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }
}

/// Most values read from one file: 8 GiB of floats.
pub(super) const VALUES_MAX: usize = 1 << 31;
/// Longest header read, in bytes; numpy writes about 100.
const HEADER_BYTES_MAX: usize = 1 << 16;

/// Vectors of u8, i8, f16 or f32.
pub(super) fn read_vectors(path: &Path, rows_max: usize) -> anyhow::Result<Matrix<f32>> {
    read(path, rows_max, |kind, bytes, values| {
        match kind {
            "|u1" => values.extend(bytes.iter().map(|byte| f32::from(*byte))),
            "|i1" => values.extend(bytes.iter().map(|byte| f32::from(*byte as i8))),
            "<f2" => values.extend(elements(bytes).map(|bytes| half_to_f32(u16::from_le_bytes(bytes)))),
            "<f4" => values.extend(elements(bytes).map(f32::from_le_bytes)),
            other => bail!("elements of type {other} are not supported (u1, i1, f2 and f4 are)"),
        }
        Ok(())
    })
}

/// Row numbers as i32.
pub(super) fn read_rows(path: &Path, rows_max: usize) -> anyhow::Result<Matrix<i32>> {
    read(path, rows_max, convert_rows)
}

/// Row numbers from something that is no file of its own, such as a member of an archive.
pub(super) fn read_rows_from(source: impl Read, rows_max: usize) -> anyhow::Result<Matrix<i32>> {
    read_from(source, rows_max, convert_rows)
}

fn convert_rows(kind: &str, bytes: &[u8], values: &mut Vec<i32>) -> anyhow::Result<()> {
    match kind {
        "<i4" => values.extend(elements(bytes).map(i32::from_le_bytes)),
        "<u4" => {
            for bytes in elements(bytes) {
                values.push(u32::from_le_bytes(bytes).try_into().context("a row number does not fit in 31 bits")?);
            }
        }
        "<i8" => {
            for bytes in elements(bytes) {
                values.push(i64::from_le_bytes(bytes).try_into().context("a row number does not fit in 31 bits")?);
            }
        }
        other => bail!("elements of type {other} are not supported (i4, u4 and i8 are)"),
    }
    Ok(())
}

fn elements<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.as_chunks().0.iter().copied()
}

/// IEEE 754 half precision.
fn half_to_f32(half: u16) -> f32 {
    let (sign, exponent, fraction) = (u32::from(half >> 15) << 31, u32::from(half >> 10) & 31, u32::from(half) & 1023);
    match exponent {
        0 => {
            let small = fraction as f32 * 2f32.powi(-24);
            if sign == 0 { small } else { -small }
        }
        31 => f32::from_bits(sign | 0x7f80_0000 | (fraction << 13)),
        _ => f32::from_bits(sign | ((exponent + 112) << 23) | (fraction << 13)),
    }
}

type Convert<T> = fn(&str, &[u8], &mut Vec<T>) -> anyhow::Result<()>;

fn read<T>(path: &Path, rows_max: usize, convert: Convert<T>) -> anyhow::Result<Matrix<T>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    read_from(BufReader::new(file), rows_max, convert).with_context(|| format!("cannot read {}", path.display()))
}

fn read_from<T>(mut file: impl Read, rows_max: usize, convert: Convert<T>) -> anyhow::Result<Matrix<T>> {
    let mut start = [0; 8];
    file.read_exact(&mut start)?;
    ensure!(&start[..6] == b"\x93NUMPY", "this is no .npy file");
    let header_bytes = if start[6] == 1 {
        let mut len = [0; 2];
        file.read_exact(&mut len)?;
        usize::from(u16::from_le_bytes(len))
    } else {
        let mut len = [0; 4];
        file.read_exact(&mut len)?;
        u32::from_le_bytes(len) as usize
    };
    ensure!(header_bytes <= HEADER_BYTES_MAX, "the header is {header_bytes} bytes long");
    let mut header = vec![0; header_bytes];
    file.read_exact(&mut header)?;
    let header = String::from_utf8(header).context("the header is no text")?;
    ensure!(field(&header, "fortran_order")?.starts_with("False"), "columns before rows are not supported");
    let kind = field(&header, "descr")?.trim_start_matches('\'').split('\'').next().unwrap_or("").to_owned();
    let shape = field(&header, "shape")?.trim_start_matches('(').split(')').next().unwrap_or("");
    let shape: Vec<usize> =
        shape.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
    let [rows, columns] = shape[..] else { bail!("the array has {} dimensions, expected 2", shape.len()) };
    let rows = rows.min(rows_max);
    ensure!(
        columns > 0 && rows.checked_mul(columns).is_some_and(|n| n <= VALUES_MAX),
        "{rows} x {columns} is too much"
    );
    let element_bytes: usize = kind.get(2..).unwrap_or("").parse().context("unknown element type")?;
    ensure!(element_bytes <= 8, "unknown element type {kind}");
    let mut values = Vec::with_capacity(rows * columns);
    let mut row = vec![0; columns * element_bytes];
    for _ in 0..rows {
        file.read_exact(&mut row).context("the file is shorter than its header says")?;
        convert(&kind, &row, &mut values)?;
    }
    Ok(Matrix { columns, values })
}

/// The text behind `'name':` in the header, which is a Python dictionary.
fn field<'a>(header: &'a str, name: &str) -> anyhow::Result<&'a str> {
    let (_, rest) = header.split_once(&format!("'{name}':")).with_context(|| format!("the header has no {name}"))?;
    Ok(rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kind: &str, shape: &str, data: &[u8]) -> tempfile::NamedTempFile {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn bytes_halves_and_floats() {
        let u1 = read_vectors(file("|u1", "(2, 3)", &[0, 1, 2, 253, 254, 255]).path(), 10).unwrap();
        assert_eq!((u1.rows(), u1.row(1)), (2, &[253.0, 254.0, 255.0][..]));
        let f4: Vec<u8> = [1.5f32, -2.25].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read_vectors(file("<f4", "(1, 2)", &f4).path(), 10).unwrap().values, [1.5, -2.25]);
        let f2 = [0x3c00u16, 0xc000, 0x0001, 0x7c00, 0x8000];
        let f2: Vec<u8> = f2.iter().flat_map(|v| v.to_le_bytes()).collect();
        let read = read_vectors(file("<f2", "(1, 5)", &f2).path(), 10).unwrap().values;
        assert_eq!(read, [1.0, -2.0, 5.960_464_5e-8, f32::INFINITY, -0.0]);
        assert!(read[4].is_sign_negative());
    }

    #[test]
    fn row_numbers_of_other_widths() {
        let i8: Vec<u8> = [5i64, -1].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read_rows(file("<i8", "(1, 2)", &i8).path(), 9).unwrap().values, [5, -1]);
        assert_eq!(read_rows(file("<u4", "(1, 1)", &7u32.to_le_bytes()).path(), 9).unwrap().values, [7]);
        assert!(read_rows(file("<u4", "(1, 1)", &u32::MAX.to_le_bytes()).path(), 9).is_err());
        assert!(read_rows(file("<f4", "(1, 1)", &[0; 4]).path(), 9).is_err());
    }

    #[test]
    fn only_the_rows_asked_for_are_read() {
        let matrix = read_vectors(file("|u1", "(3, 2)", &[1, 2, 3, 4, 5, 6]).path(), 2).unwrap();
        assert_eq!(matrix.values, [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn broken_files_are_refused() {
        for (kind, shape, data) in
            [("<f8", "(1, 1)", &[0; 8][..]), ("|u1", "(2,)", &[0; 2]), ("|u1", "(9, 9)", &[0; 3])]
        {
            assert!(read_vectors(file(kind, shape, data).path(), 10).is_err(), "{kind} {shape}");
        }
        assert!(read_vectors(file("|u1", "(18446744073709551615, 9)", &[]).path(), usize::MAX).is_err());
        let text = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(text.path(), "no array").unwrap();
        assert!(read_rows(text.path(), 1).is_err());
    }
}
