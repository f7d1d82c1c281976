//! Stems of English words: Porter's second algorithm ("The English (Porter2) stemming algorithm", M. F. Porter, 2001, as
//! Snowball describes it).

/// Words that the rules would get wrong.
const WHOLE: [(&str, &str); 18] = [
    ("skis", "ski"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("idly", "idl"),
    ("gently", "gentl"),
    ("ugly", "ugli"),
    ("early", "earli"),
    ("only", "onli"),
    ("singly", "singl"),
    ("sky", "sky"),
    ("news", "news"),
    ("howe", "howe"),
    ("atlas", "atlas"),
    ("cosmos", "cosmos"),
    ("bias", "bias"),
    ("andes", "andes"),
];

/// Words that are stems once their plural ending is gone.
const AFTER_PLURAL: [&str; 8] = ["inning", "outing", "canning", "herring", "earring", "proceed", "exceed", "succeed"];

/// Endings of the second step and what they become, both in R1. `ogi` and `li` ask for more.
const SECOND: [(&str, &str); 24] = [
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("abli", "able"),
    ("entli", "ent"),
    ("izer", "ize"),
    ("ization", "ize"),
    ("ational", "ate"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("aliti", "al"),
    ("alli", "al"),
    ("fulness", "ful"),
    ("ousli", "ous"),
    ("ousness", "ous"),
    ("iveness", "ive"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("bli", "ble"),
    ("ogi", "og"),
    ("fulli", "ful"),
    ("lessli", "less"),
    ("li", ""),
];

/// The same of the third step. `ative` must be in R2.
const THIRD: [(&str, &str); 9] = [
    ("tional", "tion"),
    ("ational", "ate"),
    ("alize", "al"),
    ("icate", "ic"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
    ("ative", ""),
];

/// Endings of the fourth step, which go when in R2. `ion` asks for more.
const FOURTH: [(&str, &str); 18] = [
    ("al", ""),
    ("ance", ""),
    ("ence", ""),
    ("er", ""),
    ("ic", ""),
    ("able", ""),
    ("ible", ""),
    ("ant", ""),
    ("ement", ""),
    ("ment", ""),
    ("ent", ""),
    ("ism", ""),
    ("ate", ""),
    ("iti", ""),
    ("ous", ""),
    ("ive", ""),
    ("ize", ""),
    ("ion", ""),
];

/// The stem of a word in lower case. A word with other letters than those of English is cut by the same rules, to which they
/// are consonants.
pub(super) fn stem(word: &str) -> String {
    if word.chars().nth(2).is_none() {
        return word.to_owned();
    }
    if let Some((_, stem)) = WHOLE.iter().find(|(whole, _)| *whole == word) {
        return (*stem).to_owned();
    }
    let mut stem = Stem::new(word);
    stem.drop_apostrophe();
    stem.drop_plural();
    if AFTER_PLURAL.iter().any(|whole| stem.is(whole)) {
        return stem.finish();
    }
    stem.drop_past();
    stem.y_to_i();
    stem.second();
    stem.third();
    stem.fourth();
    stem.drop_last_e_or_l();
    stem.finish()
}

fn is_vowel(letter: char) -> bool {
    matches!(letter, 'a' | 'e' | 'i' | 'o' | 'u' | 'y')
}

/// A word on the way to its stem. A `y` that is a consonant is `Y`.
struct Stem {
    letters: Vec<char>,
    /// Where the regions R1 and R2 begin: each after the first consonant that follows a vowel, R2 within R1.
    r1: usize,
    r2: usize,
}

impl Stem {
    fn new(word: &str) -> Stem {
        let mut letters: Vec<char> = word.strip_prefix('\'').unwrap_or(word).chars().collect();
        for at in 0..letters.len() {
            if letters[at] == 'y' && (at == 0 || is_vowel(letters[at - 1])) {
                letters[at] = 'Y';
            }
        }
        let after = |from: usize| {
            let rest = letters.get(from..).unwrap_or_default();
            let found = rest.windows(2).position(|pair| is_vowel(pair[0]) && !is_vowel(pair[1]));
            found.map_or(letters.len(), |at| from + at + 2)
        };
        let begins = |prefix: &str| letters.iter().copied().take(prefix.len()).eq(prefix.chars());
        let r1 = ["gener", "commun", "arsen"].into_iter().find(|p| begins(p)).map_or_else(|| after(0), str::len);
        let r2 = after(r1);
        Stem { letters, r1, r2 }
    }

    fn finish(self) -> String {
        self.letters.into_iter().map(|letter| if letter == 'Y' { 'y' } else { letter }).collect()
    }

    fn is(&self, word: &str) -> bool {
        self.letters.iter().copied().eq(word.chars())
    }

    fn ends(&self, ending: &str) -> bool {
        // Endings are ASCII: as many bytes as letters.
        let before = self.letters.len().checked_sub(ending.len());
        before.is_some_and(|at| self.letters[at..].iter().copied().eq(ending.chars()))
    }

    /// Where the longest of the endings begins that the word has, and which it is.
    fn longest<'a>(&self, endings: impl IntoIterator<Item = &'a str>) -> Option<(usize, &'a str)> {
        let found = endings.into_iter().filter(|ending| self.ends(ending)).max_by_key(|ending| ending.len())?;
        Some((self.letters.len() - found.len(), found))
    }

    /// The letters from a place on become others.
    fn replace(&mut self, from: usize, by: &str) {
        self.letters.truncate(from);
        self.letters.extend(by.chars());
    }

    fn has_vowel_before(&self, end: usize) -> bool {
        self.letters[..end].iter().any(|letter| is_vowel(*letter))
    }

    /// Whether the letters before a place end with a short syllable.
    fn is_short_syllable_before(&self, end: usize) -> bool {
        match self.letters[..end] {
            [first, second] => is_vowel(first) && !is_vowel(second),
            [.., before, vowel, last] => {
                !is_vowel(before) && is_vowel(vowel) && !is_vowel(last) && !matches!(last, 'w' | 'x' | 'Y')
            }
            _ => false,
        }
    }

    fn drop_apostrophe(&mut self) {
        if let Some((at, _)) = self.longest(["'", "'s", "'s'"]) {
            self.letters.truncate(at);
        }
    }

    fn drop_plural(&mut self) {
        match self.longest(["sses", "ied", "ies", "s", "us", "ss"]) {
            Some((at, "sses")) => self.replace(at, "ss"),
            Some((at, "ied" | "ies")) => self.replace(at, if at > 1 { "i" } else { "ie" }),
            // A vowel, but not right before the `s`.
            Some((at, "s")) if at > 0 && self.has_vowel_before(at - 1) => self.letters.truncate(at),
            Some(_) | None => {}
        }
    }

    fn drop_past(&mut self) {
        let Some((at, ending)) = self.longest(["eed", "eedly", "ed", "edly", "ing", "ingly"]) else { return };
        if matches!(ending, "eed" | "eedly") {
            if at >= self.r1 {
                self.replace(at, "ee");
            }
            return;
        }
        if !self.has_vowel_before(at) {
            return;
        }
        self.letters.truncate(at);
        let doubles = ["bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt"];
        if self.longest(["at", "bl", "iz"]).is_some() {
            self.letters.push('e');
        } else if self.longest(doubles).is_some() {
            self.letters.pop();
        } else if self.r1 >= self.letters.len() && self.is_short_syllable_before(self.letters.len()) {
            self.letters.push('e');
        }
    }

    fn y_to_i(&mut self) {
        if let [_, .., before, last @ ('y' | 'Y')] = &mut self.letters[..]
            && !is_vowel(*before)
        {
            *last = 'i';
        }
    }

    /// Replaces the longest of the endings when the rule for it allows.
    fn apply(&mut self, endings: &[(&'static str, &'static str)], allows: impl Fn(&Stem, usize, &str) -> bool) {
        let Some((at, ending)) = self.longest(endings.iter().map(|(ending, _)| *ending)) else { return };
        if allows(self, at, ending)
            && let Some((_, by)) = endings.iter().find(|(known, _)| *known == ending)
        {
            self.replace(at, by);
        }
    }

    fn letter_before(&self, at: usize) -> Option<char> {
        self.letters[..at].last().copied()
    }

    fn second(&mut self) {
        self.apply(&SECOND, |stem, at, ending| {
            at >= stem.r1
                && match ending {
                    "ogi" => stem.letter_before(at) == Some('l'),
                    "li" => stem.letter_before(at).is_some_and(|letter| "cdeghkmnrt".contains(letter)),
                    _ => true,
                }
        });
    }

    fn third(&mut self) {
        self.apply(&THIRD, |stem, at, ending| at >= stem.r1 && (ending != "ative" || at >= stem.r2));
    }

    fn fourth(&mut self) {
        self.apply(&FOURTH, |stem, at, ending| {
            at >= stem.r2 && (ending != "ion" || matches!(stem.letter_before(at), Some('s' | 't')))
        });
    }

    fn drop_last_e_or_l(&mut self) {
        let Some(at) = self.letters.len().checked_sub(1) else { return };
        let drops = match self.letters[at] {
            'e' => at >= self.r2 || at >= self.r1 && !self.is_short_syllable_before(at),
            'l' => at >= self.r2 && self.letter_before(at) == Some('l'),
            _ => false,
        };
        if drops {
            self.letters.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_have_the_stems_that_the_algorithm_s_authors_give() {
        for (word, expected) in [
            ("consign", "consign"),
            ("consigned", "consign"),
            ("consigning", "consign"),
            ("consist", "consist"),
            ("consistency", "consist"),
            ("consolation", "consol"),
            ("consolatory", "consolatori"),
            ("consoling", "consol"),
            ("conspicuously", "conspicu"),
            ("conspiracy", "conspiraci"),
            ("constancy", "constanc"),
            ("knack", "knack"),
            ("knaves", "knave"),
            ("kneeled", "kneel"),
            ("knightly", "knight"),
            ("knives", "knive"),
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("ties", "tie"),
            ("cries", "cri"),
            ("gas", "gas"),
            ("this", "this"),
            ("gaps", "gap"),
            ("kiwis", "kiwi"),
            ("luxuriated", "luxuri"),
            ("hopping", "hop"),
            ("hoping", "hope"),
            ("falling", "fall"),
            ("by", "by"),
            ("say", "say"),
            ("cry", "cri"),
            ("happy", "happi"),
            ("relational", "relat"),
            ("generally", "general"),
            ("generate", "generat"),
            ("communism", "communism"),
            ("arsenal", "arsenal"),
            ("running", "run"),
            ("national", "nation"),
            ("adoption", "adopt"),
            ("apology", "apolog"),
            ("rolling", "roll"),
            ("controlling", "control"),
            ("skies", "sky"),
            ("dying", "die"),
            ("proceeds", "proceed"),
            ("innings", "inning"),
            ("youth", "youth"),
            ("boyish", "boyish"),
            ("flying", "fli"),
            ("agreed", "agre"),
            ("feed", "feed"),
            ("dog's", "dog"),
            ("'tis", "tis"),
            ("cats'", "cat"),
            ("bed", "bed"),
            ("shed", "shed"),
            ("it", "it"),
            ("größe", "größe"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_stem(text: String, word in "[a-z']{0,12}") {
            stem(&text);
            let stemmed = stem(&word);
            prop_assert!(stemmed.len() <= word.len() + 1, "{word} {stemmed}");
        }
    }
}
