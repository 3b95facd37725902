//! The table at the head of a mail with several findings. Pure.

use super::Summary;
use super::text::Text;

/// Rows of one mail.
const ROWS_MAX: usize = 200;

/// Digits of an id that `findings show` understands.
const ID_DIGITS: usize = 12;

const COLUMNS: usize = 7;
const TITLES: [&str; COLUMNS] = [
    "SEVERITY",
    "HOST",
    "ACCOUNT",
    "PID",
    "INDICATORS",
    "ID",
    "EXECUTABLE",
];

/// Writes a row per finding, and how many there are beyond.
pub(super) fn write(text: &mut Text, lines: &[Summary]) {
    let mut rows: Vec<[String; COLUMNS]> = vec![TITLES.map(str::to_owned)];
    rows.extend(lines.iter().take(ROWS_MAX).map(row));
    let mut widths = [0; COLUMNS];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    for row in &rows {
        let padded = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        text.line(&padded.collect::<Vec<_>>().join("  "));
    }
    let more = lines.len().saturating_sub(ROWS_MAX);
    if more > 0 {
        text.line(&format!("and {more} more"));
    }
}

fn row(line: &Summary) -> [String; COLUMNS] {
    [
        line.severity.to_string(),
        line.host.clone(),
        line.account.clone().unwrap_or_else(|| "-".to_owned()),
        line.pid
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        line.indicators.clone(),
        line.id.to_string().chars().take(ID_DIGITS).collect(),
        line.exe.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}
