//! What goes to standard output and what to standard error.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::exit::Failure;

/// Writes one line of a result to standard output, at once.
///
/// # Errors
/// [`Failure`] if it cannot be written; that nobody reads any more is no failure.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes one object as one line of a result.
///
/// # Errors
/// As [`line()`].
pub(crate) fn json(object: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(object)
        .map_err(|error| Failure::failed(format!("cannot make JSON: {error}")))?;
    line(&text)
}

/// Whether to show progress bars: on a terminal, unless somebody does not want them.
pub(crate) fn bars_wanted(no_progress: bool) -> bool {
    !no_progress && io::stderr().is_terminal()
}

/// Says something on standard error.
pub(crate) fn note(text: &str) {
    // There is nowhere else to say it.
    let _ = writeln!(io::stderr().lock(), "{}", plain(text));
}

/// Says on standard error why a command ends.
pub(crate) fn complain(text: &str) {
    note(&format!("error: {text}"));
}

/// `text` without control characters but line ends: what others wrote must not steer the
/// terminal.
pub(crate) fn plain(text: &str) -> String {
    let keep = |c: char| {
        if c.is_control() && c != '\n' { '\u{fffd}' } else { c }
    };
    text.chars().map(keep).collect()
}

/// A table with aligned columns; the first row is the head.
#[derive(Debug)]
pub(crate) struct TextTable<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> TextTable<N> {
    /// A table with these column titles.
    pub(crate) fn new(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned)] }
    }

    /// Adds a row; an empty cell becomes a dash.
    pub(crate) fn row(&mut self, cells: [String; N]) {
        let shown = |cell: String| {
            if cell.is_empty() { "-".to_owned() } else { plain(&cell) }
        };
        self.rows.push(cells.map(shown));
    }

    /// The lines of the table.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        self.rows.iter().map(move |row| {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
    }

    /// Writes the table to standard output.
    ///
    /// # Errors
    /// As [`line()`].
    pub(crate) fn print(&self) -> Result<(), Failure> {
        self.lines().try_for_each(|text| line(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_is_a_dash() {
        let mut table = TextTable::new(["NAME", "STATE", "NOTE"]);
        table.row(["a-long-name".to_owned(), "up".to_owned(), String::new()]);
        table.row(["\u{fc}".to_owned(), "down".to_owned(), "x\u{1b}[2J".to_owned()]);
        let lines: Vec<String> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "NAME         STATE  NOTE",
                "a-long-name  up     -",
                "\u{fc}            down   x\u{fffd}[2J"
            ]
        );
    }
}
