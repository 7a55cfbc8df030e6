//! Tables on a terminal: columns as wide as what stands in them, two spaces between them.

use std::fmt;

/// On which side the cells of a column are filled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Text(&'static str),
    Number(&'static str),
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Text(title) | Self::Number(title) => title,
        }
    }
}

/// Titles and rows of `N` cells.
pub(super) struct Table<const N: usize> {
    columns: [Column; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(columns: [Column; N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }
}

/// Each line with its end.
impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = self.columns.map(|column| column.title().to_owned());
        let lines = || std::iter::once(&titles).chain(&self.rows);
        let mut widths = [0; N];
        for line in lines() {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for line in lines() {
            let mut text = String::new();
            for ((cell, column), width) in line.iter().zip(self.columns).zip(widths) {
                text.push_str(&match column {
                    Column::Text(_) => format!("{cell:<width$}  "),
                    Column::Number(_) => format!("{cell:>width$}  "),
                });
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them() {
        let mut table = Table::new([Column::Text("camera"), Column::Number("MiB"), Column::Text("why")]);
        table.row(["é".to_owned(), "12345".to_owned(), String::new()]);
        table.row(["front-door".to_owned(), "1".to_owned(), "it is full".to_owned()]);
        let expected = "camera        MiB  why\né           12345\nfront-door      1  it is full\n";
        assert_eq!(table.to_string(), expected);
    }
}
