//! "Did you mean": the nearest known word.

/// The candidate that `word` probably stands for; `None` when none is near.
///
/// Case, hyphens, underscores and spaces do not count; otherwise one edit in three characters is forgiven, or
/// the word is a part of exactly one candidate.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = plain(word);
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let candidates: Vec<(Vec<char>, &str)> = candidates.into_iter().map(|text| (plain(text), text)).collect();
    let near = candidates
        .iter()
        .map(|(letters, text)| (distance(&word, letters), *text))
        .filter(|&(edits, _)| edits <= (word.len() / 3).max(1))
        .min_by_key(|&(edits, _)| edits);
    near.map(|(_, text)| text).or_else(|| only_containing(&word, &candidates))
}

/// How many candidates are worth looking at after so many findings: a document that is wrong throughout needs
/// no guesses, and must not take minutes.
pub(crate) fn candidates_max(findings: usize) -> usize {
    if findings < 200 { 2_000 } else { 0 }
}

fn only_containing<'a>(word: &[char], candidates: &[(Vec<char>, &'a str)]) -> Option<&'a str> {
    let mut containing =
        candidates.iter().filter(|(letters, _)| letters.windows(word.len()).any(|w| w == word));
    let (_, text) = containing.next().filter(|_| word.len() >= 4)?;
    containing.next().is_none().then_some(*text)
}

/// `did you mean "x"?`, or `otherwise` when nothing is near.
pub(crate) fn remedy<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    otherwise: impl FnOnce() -> String,
) -> String {
    nearest(word, candidates).map_or_else(otherwise, |candidate| format!("did you mean \"{candidate}\"?"))
}

fn plain(word: &str) -> Vec<char> {
    word.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).flat_map(char::to_lowercase).collect()
}

/// Edits between two words: a letter added, removed, replaced, or two neighbours exchanged.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut two_above: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    let mut left_before = None;
    for (row, l) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        let mut right_before = None;
        for (column, r) in right.iter().enumerate() {
            let cell = |line: &[usize], at: usize| line.get(at).copied().unwrap_or(usize::MAX - 1);
            let mut edits = cell(&above, column) + usize::from(l != r);
            edits = edits.min(cell(&above, column + 1) + 1).min(cell(&current, column) + 1);
            if left_before == Some(r) && right_before == Some(l) {
                edits = edits.min(cell(&two_above, column - 1) + 1);
            }
            current.push(edits);
            right_before = Some(r);
        }
        two_above = std::mem::replace(&mut above, current);
        left_before = Some(l);
    }
    above.last().copied().unwrap_or(left.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested_and_a_far_one_is_not() {
        let words = ["front_end", "director", "edge"];

        assert_eq!(nearest("FrontEnd", words), Some("front_end"));
        assert_eq!(nearest("direktor", words), Some("director"));
        assert_eq!(nearest("egde", words), Some("edge"));
        assert_eq!(nearest("edg", words), Some("edge"));
        assert_eq!(nearest("kamailio", words), None);
        assert_eq!(nearest("", words), None);
        assert_eq!(nearest("capacity", ["users_expected", "users_capacity"]), Some("users_capacity"));
        assert_eq!(nearest("users", ["users_expected", "users_capacity"]), None);
    }

    #[test]
    fn distance_counts_edits() {
        let d = |l: &str, r: &str| distance(&plain(l), &plain(r));

        assert_eq!(d("kitten", "sitting"), 3);
        assert_eq!(d("", "abc"), 3);
        assert_eq!(d("abc", ""), 3);
        assert_eq!(d("abc", "abc"), 0);
        assert_eq!(d("wset", "west"), 1);
        assert_eq!(d("ab", "ba"), 1);
        assert_eq!(d("", ""), 0);
    }
}
