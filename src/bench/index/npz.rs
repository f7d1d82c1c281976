//! Reads `.npz` archives of lists of neighbours: a zip file of `.npy` members, stored or deflated. Only what numpy
//! writes: no encryption, one disk, under 4 GiB.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use flate2::Crc;
use flate2::read::DeflateDecoder;

use crate::bench::npy::{self, Matrix};

/// Largest member, unpacked, in bytes.
const MEMBER_BYTES_MAX: u32 = 1 << 30;
/// "End of central directory", the last record of a zip file.
const END: u32 = 0x0605_4b50;
/// Its length without the comment.
const END_BYTES: usize = 22;
/// Longest comment after it.
const COMMENT_BYTES_MAX: usize = 65_535;
/// "Central directory header", one per member.
const ENTRY: u32 = 0x0201_4b50;
const ENTRY_BYTES: usize = 46;
/// "Local file header", in front of a member's bytes.
const LOCAL: u32 = 0x0403_4b50;
const LOCAL_BYTES: usize = 30;

/// The arrays of an archive with their names, in its order; at most `rows_max` rows of each.
pub(super) fn read_rows(path: &Path, rows_max: usize) -> anyhow::Result<Vec<(String, Matrix<i32>)>> {
    let file = std::fs::read(path).with_context(|| format!("cannot open {}", path.display()))?;
    arrays(&file, rows_max).with_context(|| format!("cannot read {}", path.display()))
}

fn arrays(file: &[u8], rows_max: usize) -> anyhow::Result<Vec<(String, Matrix<i32>)>> {
    members(file)?
        .into_iter()
        .map(|member| {
            let name = member.name.strip_suffix(".npy").unwrap_or(&member.name).to_owned();
            let array = unpack(file, &member).and_then(|bytes| npy::read_rows_from(&bytes[..], rows_max));
            Ok((name, array.with_context(|| format!("member `{}`", member.name))?))
        })
        .collect()
}

/// One line of the central directory.
struct Member {
    name: String,
    method: u16,
    crc: u32,
    packed_bytes: u32,
    bytes: u32,
    offset: u32,
}

fn members(file: &[u8]) -> anyhow::Result<Vec<Member>> {
    let last = file.len().checked_sub(END_BYTES).context("this is no .npz file: too short")?;
    let first = last.saturating_sub(COMMENT_BYTES_MAX);
    let end = (first..=last).rev().find(|at| u32_at(file, *at).is_ok_and(|mark| mark == END));
    let end = end.context("this is no .npz file, or its end is missing")?;
    let count = u16_at(file, end + 10)?;
    let mut at = u32_at(file, end + 16)? as usize;
    let mut members = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        ensure!(u32_at(file, at)? == ENTRY, "the directory of the archive is broken");
        let name_bytes = usize::from(u16_at(file, at + 28)?);
        let extra_bytes = usize::from(u16_at(file, at + 30)?);
        let comment_bytes = usize::from(u16_at(file, at + 32)?);
        let name = file.get(at + ENTRY_BYTES..at + ENTRY_BYTES + name_bytes).context("the archive ends early")?;
        members.push(Member {
            name: String::from_utf8_lossy(name).into_owned(),
            method: u16_at(file, at + 10)?,
            crc: u32_at(file, at + 16)?,
            packed_bytes: u32_at(file, at + 20)?,
            bytes: u32_at(file, at + 24)?,
            offset: u32_at(file, at + 42)?,
        });
        at += ENTRY_BYTES + name_bytes + extra_bytes + comment_bytes;
    }
    Ok(members)
}

fn unpack(file: &[u8], member: &Member) -> anyhow::Result<Vec<u8>> {
    let at = member.offset as usize;
    ensure!(u32_at(file, at)? == LOCAL, "it is not where the directory says");
    ensure!(member.bytes <= MEMBER_BYTES_MAX, "{} bytes are too many", member.bytes);
    let start = at + LOCAL_BYTES + usize::from(u16_at(file, at + 26)?) + usize::from(u16_at(file, at + 28)?);
    let packed = file.get(start..).and_then(|rest| rest.get(..member.packed_bytes as usize));
    let packed = packed.context("the archive ends early")?;
    let mut bytes = Vec::new();
    match member.method {
        0 => bytes.extend_from_slice(packed),
        8 => {
            let limit = u64::from(member.bytes) + 1;
            DeflateDecoder::new(packed)
                .take(limit)
                .read_to_end(&mut bytes)
                .context("its compressed bytes are broken")?;
        }
        other => bail!("compression method {other} is not supported (0, stored, and 8, deflate, are)"),
    }
    ensure!(bytes.len() == member.bytes as usize, "{} bytes instead of {}", bytes.len(), member.bytes);
    let mut crc = Crc::new();
    crc.update(&bytes);
    ensure!(crc.sum() == member.crc, "its checksum is wrong");
    Ok(bytes)
}

fn u16_at(file: &[u8], at: usize) -> anyhow::Result<u16> {
    bytes_at(file, at).map(u16::from_le_bytes)
}

fn u32_at(file: &[u8], at: usize) -> anyhow::Result<u32> {
    bytes_at(file, at).map(u32::from_le_bytes)
}

fn bytes_at<const N: usize>(file: &[u8], at: usize) -> anyhow::Result<[u8; N]> {
    file.get(at..).and_then(|rest| rest.first_chunk()).copied().context("the archive ends early")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    fn npy(values: &[i32]) -> Vec<u8> {
        let header = format!("{{'descr': '<i4', 'fortran_order': False, 'shape': ({}, 1), }}\n", values.len());
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    /// A zip file as numpy writes it: local headers with an extra field, then the directory.
    fn zip(members: &[(&str, u16, Vec<u8>)]) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for (name, method, bytes) in members {
            let mut crc = Crc::new();
            crc.update(bytes);
            let packed = if *method == 8 {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            } else {
                bytes.clone()
            };
            let offset = file.len() as u32;
            let name_bytes = (name.len() as u16).to_le_bytes();
            file.extend(LOCAL.to_le_bytes());
            file.extend([0; 22]);
            file.extend(name_bytes);
            file.extend(5u16.to_le_bytes());
            file.extend(name.as_bytes());
            file.extend([9; 5]);
            file.extend(&packed);

            let mut entry = vec![0; ENTRY_BYTES];
            entry[..4].copy_from_slice(&ENTRY.to_le_bytes());
            entry[10..12].copy_from_slice(&method.to_le_bytes());
            entry[16..20].copy_from_slice(&crc.sum().to_le_bytes());
            entry[20..24].copy_from_slice(&(packed.len() as u32).to_le_bytes());
            entry[24..28].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
            entry[28..30].copy_from_slice(&name_bytes);
            entry[42..46].copy_from_slice(&offset.to_le_bytes());
            directory.extend(entry);
            directory.extend(name.as_bytes());
        }
        let mut end = vec![0; END_BYTES];
        end[..4].copy_from_slice(&END.to_le_bytes());
        end[10..12].copy_from_slice(&(members.len() as u16).to_le_bytes());
        end[16..20].copy_from_slice(&(file.len() as u32).to_le_bytes());
        [file, directory, end].concat()
    }

    #[test]
    fn stored_and_deflated_members() {
        let file = zip(&[("first.npy", 0, npy(&[1, 2, 3])), ("second.npy", 8, npy(&[7; 500]))]);
        let read = arrays(&file, 400).unwrap();
        assert_eq!((read[0].0.as_str(), &read[0].1.values[..]), ("first", &[1, 2, 3][..]));
        assert_eq!((read[1].0.as_str(), &read[1].1.values[..]), ("second", &[7; 400][..]));
    }

    #[test]
    fn broken_archives_are_refused() {
        let good = zip(&[("a.npy", 8, npy(&[1, 2, 3]))]);
        for len in 0..good.len() {
            assert!(arrays(&good[..len], 9).is_err(), "cut to {len} bytes");
        }
        let cases =
            [(zip(&[("a.npy", 12, npy(&[1]))]), "method 12"), (zip(&[("a.npy", 0, vec![1])]), "member `a.npy`")];
        for (file, reason) in cases {
            let error = format!("{:#}", arrays(&file, 9).unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
        let mut flipped = zip(&[("a.npy", 0, npy(&[1, 2, 3]))]);
        let at = flipped.len() - END_BYTES - ENTRY_BYTES - 8;
        flipped[at] ^= 1;
        assert!(format!("{:#}", arrays(&flipped, 9).unwrap_err()).contains("checksum"));
    }
}
