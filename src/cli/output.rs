//! What commands print: aligned tables for people, JSON for programs. stdout is data, stderr is talk.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde_json::Value;

use crate::cli::exit::{Failure, Outcome};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Rows under upper-case headers, columns aligned; a column of numbers is flushed right.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(headers: &[&str]) -> Table {
        Table { rows: vec![headers.iter().map(|h| h.to_string()).collect()] }
    }

    pub fn row<S: ToString>(&mut self, cells: &[S]) {
        self.rows.push(cells.iter().map(|c| c.to_string()).collect());
    }

    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| {
            self.rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let numeric: Vec<bool> = (0..columns).map(|c| self.is_numeric(c)).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (c, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[c] - cell.chars().count());
                let cell = if numeric[c] { format!("{pad}{cell}  ") } else { format!("{cell}{pad}  ") };
                line.push_str(&cell);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn is_numeric(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().skip(1).filter_map(|r| r.get(column)).peekable();
        cells.peek().is_some() && cells.all(|c| c == "-" || c.parse::<f64>().is_ok())
    }
}

/// Writes to stdout; a reader that went away (`| head`) ends the program quietly.
pub fn print(text: &str) -> Outcome {
    write_stdout(text.as_bytes())
}

pub fn print_json(value: &Value) -> Outcome {
    print(&format!("{value:#}\n"))
}

pub fn write_stdout(bytes: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        outcome => outcome.map_err(|e| Failure::io("cannot write to stdout", &e)),
    }
}

/// One line of progress on stderr, rewritten in place; silent unless stderr is a terminal.
pub struct Progress {
    shown: bool,
    enabled: bool,
    last: Option<std::time::Instant>,
}

impl Progress {
    pub fn new() -> Progress {
        Progress { shown: false, enabled: io::stderr().is_terminal(), last: None }
    }

    /// Shows a line, at most ten times a second.
    pub fn show(&mut self, line: impl FnOnce() -> String) {
        let recent = self.last.is_some_and(|at| at.elapsed().as_millis() < 100);
        if self.enabled && !recent {
            eprint!("\r\x1b[K{}", line());
            self.shown = true;
            self.last = Some(std::time::Instant::now());
        }
    }

    /// Removes the line.
    pub fn clear(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
            self.shown = false;
        }
    }
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A line for people, on stderr.
pub fn say(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let mut table = Table::new(&["NAME", "COUNT"]);
        table.row(&["a", "1"]);
        table.row(&["long name", "1000"]);
        assert_eq!(table.render(), "NAME       COUNT\na              1\nlong name   1000\n");
    }
}
