//! Tables for people: columns without lines, every cell printable.

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, Color, ContentArrangement};
use procwarden_common::printable::printable_text;
use procwarden_common::severity::Severity;

/// A table, or a list of names and values when it has no header.
pub(crate) struct Table {
    table: comfy_table::Table,
}

/// One cell. Made from text only through the escaping conversions below.
pub(crate) struct TableCell(Cell);

impl<T: AsRef<str>> From<T> for TableCell {
    fn from(text: T) -> Self {
        Self(Cell::new(printable_text(text.as_ref())))
    }
}

/// A severity's cell, in its colour.
pub(crate) fn severity_cell(severity: Severity) -> TableCell {
    let cell = Cell::new(severity.as_str());
    TableCell(match severity {
        Severity::Critical => cell.fg(Color::Red).add_attribute(Attribute::Bold),
        Severity::High => cell.fg(Color::Red),
        Severity::Medium => cell.fg(Color::Yellow),
        Severity::Low | Severity::Info => cell,
    })
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(header: &[&str]) -> Self {
        let mut list = Self::list();
        list.table.set_header(header.iter().map(Cell::new));
        list
    }

    /// Rows of a name and a value.
    pub(crate) fn list() -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        Self { table }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [TableCell; N]) {
        self.table.add_row(cells.map(|cell| cell.0));
    }

    /// Adds a name and its value.
    pub(crate) fn fact(&mut self, name: &str, value: impl AsRef<str>) {
        self.row([name.into(), value.as_ref().into()]);
    }

    /// The text of the table, without a newline at its end.
    pub(crate) fn render(&self) -> String {
        let mut table = self.table.clone();
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table.trim_fmt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_in_a_cell_cannot_leave_it() {
        let mut table = Table::new(&["NAME", "SEVERITY"]);
        table.row([
            "a\u{1b}[2J\nb\u{202e}".into(),
            severity_cell(Severity::High),
        ]);
        let text = table.render();
        assert!(text.contains("a\\1b[2J\\nb\\e2\\80\\ae"), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn columns_line_up_without_padding_at_the_ends() {
        let mut table = Table::new(&["A", "BB"]);
        table.row(["long one".into(), "x".into()]);
        table.row(["y".into(), "z".into()]);
        assert_eq!(table.render(), "A         BB\nlong one  x\ny         z");
    }
}
