//! Accented Latin letters as plain ASCII ones.
//!
//! Covered: the letters of Latin-1 Supplement (U+00C0 to U+00FF) and Latin Extended-A (U+0100 to U+017F), of Latin Extended-B
//! the caron pairs U+01CD to U+01DC, Ơ and Ư and the comma pairs U+0218 to U+021B, and those of Latin Extended Additional
//! (U+1E00 to U+1EFF), which has all of Vietnamese. Combining marks U+0300 to U+036F are dropped. All else stays.

use std::borrow::Cow;

/// Letters from a code point on: what each becomes; `*` has two letters, see [`two_letters`], `.` stays.
const PLAIN: [(u32, &[u8]); 6] = [
    (
        0xc0,
        b"AAAAAA*CEEEEIIIIDNOOOOO.OUUUUY**aaaaaa*ceeeeiiiidnooooo.ouuuuy*y\
          AaAaAaCcCcCcCcDdDdEeEeEeEeEeGgGgGgGgHhHhIiIiIiIiIi**JjKkkLlLlLlLlLlNnNnNnnNnOoOoOo**RrRrRrSsSsSsSsTtTtTtUuUuUuUuUuUu\
          WwYyYZzZzZzs",
    ),
    (0x1a0, b"Oo"),
    (0x1af, b"Uu"),
    (0x1cd, b"AaIiOoUuUuUuUuUu"),
    (0x218, b"SsTt"),
    (
        0x1e00,
        b"AaBbBbBbCcDdDdDdDdDdEeEeEeEeEeFfGgHhHhHhHhHhIiIiKkKkKkLlLlLlLlMmMmMmNnNnNnNnOoOoOoOoPpPpRrRrRrRrSsSsSsSsSsTtTtTtTt\
          UuUuUuUuUuVvVvWwWwWwWwWwXxXxYyZzZzZzhtwy.s..*.AaAaAaAaAaAaAaAaAaAaAaAaEeEeEeEeEeEeEeEeIiIiOoOoOoOoOoOoOoOoOoOoOoOo\
          UuUuUuUuUuUuUuYyYyYyYy......",
    ),
];

fn two_letters(letter: char) -> Option<&'static str> {
    Some(match letter {
        'Æ' => "AE",
        'æ' => "ae",
        'Œ' => "OE",
        'œ' => "oe",
        'ß' => "ss",
        'ẞ' => "SS",
        'Þ' => "TH",
        'þ' => "th",
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        _ => return None,
    })
}

/// The word in ASCII as far as its letters are covered.
pub(super) fn fold(word: &str) -> Cow<'_, str> {
    if word.is_ascii() {
        return Cow::Borrowed(word);
    }
    let mut folded = String::with_capacity(word.len());
    for letter in word.chars() {
        let code = u32::from(letter);
        let plain = PLAIN.iter().find_map(|(first, letters)| letters.get(code.checked_sub(*first)? as usize));
        match plain {
            _ if (0x300..0x370).contains(&code) => {}
            Some(b'*') => folded.push_str(two_letters(letter).unwrap_or_default()),
            Some(b'.') | None => folded.push(letter),
            Some(plain) => folded.push(char::from(*plain)),
        }
    }
    Cow::Owned(folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accents_are_dropped_and_other_scripts_stay() {
        for (word, folded) in [
            ("ação", "acao"),
            ("Ångström", "Angstrom"),
            ("Straße", "Strasse"),
            ("STRAẞE", "STRASSE"),
            ("Œuvre œdème", "OEuvre oedeme"),
            ("Łódź", "Lodz"),
            ("Þórr ðæð", "THorr daed"),
            ("İstanbul ılık", "Istanbul ilik"),
            ("Đường phố ướt", "Duong pho uot"),
            ("ș ț ǜ ŉ ſ", "s t u n s"),
            ("e\u{301}te\u{301}", "ete"),
            ("×÷", "×÷"),
            ("плавать 東京 ĸ", "плавать 東京 k"),
            ("", ""),
        ] {
            assert_eq!(fold(word), folded, "{word}");
        }
    }

    #[test]
    fn every_covered_letter_becomes_ascii_or_stays() {
        let covered = PLAIN.iter().flat_map(|(first, letters)| *first..first + letters.len() as u32);
        for letter in covered.filter_map(char::from_u32) {
            let text = letter.to_string();
            let folded = fold(&text).into_owned();
            assert!(folded == text || !folded.is_empty() && folded.is_ascii(), "{letter} {folded}");
        }
        assert_eq!(PLAIN.map(|(_, letters)| letters.len()), [192, 2, 2, 16, 4, 256]);
    }
}
