//! Guesses which word was meant.

/// The word of `known` that `written` is most likely a slip of, if any is near enough.
pub(crate) fn nearest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    // Longer than any word here could be: not worth comparing.
    if written.len() > 64 {
        return None;
    }
    let written = written.to_lowercase().replace('-', "_");
    let rated = known.iter().filter_map(|word| {
        let plain = word.to_lowercase().replace('-', "_");
        // `password` for `password_file`: cut short, not mistyped.
        let cut = written.len() >= 4 && plain.starts_with(&written);
        let distance = if cut { 1 } else { edits(&written, &plain) };
        (distance <= tolerated(&plain)).then_some((distance, *word))
    });
    rated.min().map(|(_, word)| word)
}

/// One slip in a short word, two in a longer one: more would propose a word that was not meant.
fn tolerated(word: &str) -> usize {
    if word.len() <= 4 { 1 } else { 2 }
}

/// How many characters must be put in, taken out, changed, or swapped with the next one.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let keys = ["port", "priority", "password_file", "data_dir", "detect_after"];
        for (written, meant) in [
            ("prot", Some("port")),
            ("Port", Some("port")),
            ("data-dir", Some("data_dir")),
            ("datadir", Some("data_dir")),
            ("password", Some("password_file")),
            ("detect_afer", Some("detect_after")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, &keys), meant, "{written}");
        }
    }
}
