//! How big a pattern becomes when it is compiled, by its text alone.
//!
//! A pattern with look-around is compiled in parts, each within a limit of its
//! own, so nothing else bounds what all of them take together. Counted
//! repetition is what makes a short pattern big: `(a{100}){100}`. Pure; never
//! too low for a pattern that compiles, and high by the length of its classes.

/// Characters, after counted repetition is written out.
pub(super) fn weight(pattern: &str) -> usize {
    let bytes = pattern.as_bytes();
    // Of each open group: what lies before its last item, and that item.
    let mut groups = vec![Group::default()];
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        let (length, change) = match byte {
            b'\\' => (2, Change::Item(2)),
            b'[' => {
                let length = class_length(rest);
                // Classes stand there as sets: up to eight bytes for a range.
                (length, Change::Item(1 + length / 8))
            }
            b'(' if rest.starts_with(b"(?:") => (3, Change::Open),
            b'(' => (1, Change::Open),
            b')' => (1, Change::Close),
            b'{' => counted(rest).map_or((1, Change::Item(1)), |(length, most)| {
                (length, Change::Repeat(most))
            }),
            _ => (1, Change::Item(1)),
        };
        apply(&mut groups, change);
        at += length;
    }
    groups
        .iter()
        .fold(0, |sum, group| sum.saturating_add(group.weight()))
}

#[derive(Default)]
struct Group {
    before: usize,
    last: usize,
}

impl Group {
    fn weight(&self) -> usize {
        self.before.saturating_add(self.last)
    }

    fn push(&mut self, item: usize) {
        self.before = self.weight();
        self.last = item;
    }
}

enum Change {
    Item(usize),
    Open,
    Close,
    Repeat(usize),
}

fn apply(groups: &mut Vec<Group>, change: Change) {
    let closed = match change {
        Change::Open => return groups.push(Group::default()),
        // One that closes nothing is an error elsewhere.
        Change::Close if groups.len() > 1 => groups.pop(),
        _ => None,
    };
    let Some(group) = groups.last_mut() else {
        return;
    };
    match change {
        Change::Item(weight) => group.push(weight),
        Change::Repeat(most) => group.last = group.last.saturating_mul(most.max(1)),
        Change::Open | Change::Close => {
            group.push(closed.map_or(1, |group| group.weight().saturating_add(1)))
        }
    }
}

/// Bytes of `[...]`, in which a bracket that comes first is a member.
fn class_length(text: &[u8]) -> usize {
    let mut at = 1;
    if text.get(at) == Some(&b'^') {
        at += 1;
    }
    let first = at;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            b']' if at > first => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// Bytes of `{2}`, `{2,}` or `{2,5}`, and the greatest number in it; nothing
/// when it is no repetition.
fn counted(text: &[u8]) -> Option<(usize, usize)> {
    let end = text.iter().position(|&byte| byte == b'}')?;
    let inner = std::str::from_utf8(text.get(1..end)?).ok()?;
    let (least, most) = inner.split_once(',').unwrap_or((inner, inner));
    let number = |text: &str| match text.trim() {
        "" => Some(0),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse().unwrap_or(usize::MAX))
        }
        _ => None,
    };
    Some((end + 1, number(least)?.max(number(most)?)))
}

#[cfg(test)]
mod tests {
    use super::weight;

    #[test]
    fn repetition_is_written_out() {
        for (pattern, expected) in [
            ("", 0),
            ("abc", 3),
            ("a{3}", 3),
            ("ab{3}", 4),
            ("(ab){3}", 9),
            ("(?:ab){3}", 9),
            ("((a{10}){10}){10}", 1_110),
            ("[a-z]{2,5}", 5),
            ("[]{9}]{2}", 2),
            ("[0-9A-Z_a-z]{3}", 6),
            ("x{2,}", 2),
            (r"\{3}", 4),
            ("{", 1),
            ("a{b}", 4),
            ("(?!a{5})b", 9),
            (")a{2}", 3),
        ] {
            assert_eq!(weight(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn no_count_is_too_big_to_count() {
        let most = "9".repeat(30);
        assert_eq!(weight(&format!("(a{{{most}}}){{{most}}}")), usize::MAX);
        assert!(weight(&"(".repeat(10_000)) == 0);
    }
}
