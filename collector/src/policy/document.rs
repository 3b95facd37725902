//! What is counted about policy documents. Pure.

use procwarden_common::policy::{EffectivePolicy, PolicyDocument};
use procwarden_common::wire::policy_hash;

/// The words before the colon that make a line a rule.
const RULE_KEYS: [&[u8]; 6] = [b"exe", b"pexe", b"user", b"puser", b"cmd", b"pcmd"];

/// Lines that are rules. Published documents compile, so counting lines is
/// exact and spares the replay of a ledger compiling every revision.
pub(crate) fn rule_lines(document: &PolicyDocument) -> u64 {
    let files = document.files.iter().map(|file| file.content.as_slice());
    let without_mark = files.map(|text| text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text));
    let lines = without_mark.flat_map(|text| text.split(|byte| matches!(byte, b'\n' | b'\r')));
    lines.filter(|line| is_rule(line)).count() as u64
}

/// Names a revision by everything it holds: policy, number, files, settings.
pub(crate) fn revision_hash(document: &PolicyDocument) -> [u8; 32] {
    policy_hash(&EffectivePolicy {
        documents: vec![document.clone()],
    })
}

/// Bytes of a document's files and settings.
pub(crate) fn text_bytes(document: &PolicyDocument) -> usize {
    let files = document
        .files
        .iter()
        .map(|file| file.path.len() + file.content.len());
    files.sum::<usize>() + document.settings.len()
}

/// lfd takes a key in any case and drops white space in it.
fn is_rule(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return false;
    };
    let before = line.iter().take(colon);
    let word: Vec<u8> = before
        .filter(|byte| !matches!(byte, b' ' | b'\t' | 0x0b | 0x0c))
        .map(u8::to_ascii_lowercase)
        .collect();
    RULE_KEYS.contains(&word.as_slice())
}
