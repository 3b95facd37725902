//! The known word that a mistyped one most likely means.

/// The candidate nearest to `word`, when one is near enough to be meant.
#[must_use]
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_lowercase();
    // A third of the letters may differ, and always two of a longer word.
    let far = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&word, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= far)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_finger_finds_its_word_and_another_word_finds_none() {
        let known = ["interval_secs", "min_age_secs", "users", "exe"];
        let cases = [
            ("intervall_secs", Some("interval_secs")),
            ("INTERVAL_SEC", Some("interval_secs")),
            ("user", Some("users")),
            ("ex", Some("exe")),
            ("exee", Some("exe")),
            ("banana", None),
            ("", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
