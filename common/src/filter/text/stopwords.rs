//! Words so common that they tell texts apart badly, by language.

use super::Language;

/// Ascending by bytes. Pronouns, articles, prepositions, auxiliary verbs, conjunctions, and what `'` leaves of a contraction.
#[rustfmt::skip]
const ENGLISH: [&str; 147] = [
    "a", "about", "above", "after", "again", "against", "all", "am", "an", "and", "any", "are", "aren", "as", "at",
    "be", "because", "been", "before", "being", "below", "between", "both", "but", "by", "can", "could", "couldn",
    "d", "did", "didn", "do", "does", "doesn", "doing", "don", "down", "during", "each", "few", "for", "from",
    "further", "had", "hadn", "has", "hasn", "have", "haven", "having", "he", "her", "here", "hers", "herself", "him",
    "himself", "his", "how", "i", "if", "in", "into", "is", "isn", "it", "its", "itself", "just", "ll", "m", "me",
    "more", "most", "my", "myself", "no", "nor", "not", "now", "of", "off", "on", "once", "only", "or", "other",
    "our", "ours", "ourselves", "out", "over", "own", "re", "s", "same", "she", "should", "shouldn", "so", "some",
    "such", "t", "than", "that", "the", "their", "theirs", "them", "themselves", "then", "there", "these", "they",
    "this", "those", "through", "to", "too", "under", "until", "up", "ve", "very", "was", "wasn", "we", "were",
    "weren", "what", "when", "where", "which", "while", "who", "whom", "why", "will", "with", "won", "would",
    "wouldn", "you", "your", "yours", "yourself", "yourselves",
];

/// Whether the word, in lower case, is a stopword of the language.
pub(super) fn is_stopword(language: Language, word: &str) -> bool {
    match language {
        Language::English => ENGLISH.binary_search(&word).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_found_in() {
        assert!(ENGLISH.is_sorted_by(|a, b| a < b));
        for word in ["a", "the", "your", "and", "not"] {
            assert!(is_stopword(Language::English, word), "{word}");
        }
        for word in ["", "The", "theory", "quick", "zebra"] {
            assert!(!is_stopword(Language::English, word), "{word}");
        }
    }
}
