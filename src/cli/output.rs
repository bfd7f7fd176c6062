//! What commands print: aligned tables for people, JSON or YAML for programs. stdout is data, stderr is talk.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde_json::Value;

use crate::cli::exit::{Failure, Outcome};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    /// Text with more columns, where there is more to tell
    Wide,
    Json,
    Yaml,
}

impl Format {
    /// Prints one result: a text for people, or the value for programs.
    pub fn print(self, text: impl FnOnce() -> String, value: impl FnOnce() -> Value) -> Outcome {
        match self {
            Format::Text | Format::Wide => print(&text()),
            Format::Json => print_json(&value()),
            Format::Yaml => print(&yaml(&value())),
        }
    }

    /// One of many results, each on a line (JSON) or as a document (YAML) of its own.
    pub fn line(self, text: impl FnOnce() -> String, value: impl FnOnce() -> Value) -> String {
        match self {
            Format::Text | Format::Wide => text() + "\n",
            Format::Json => format!("{}\n", value()),
            Format::Yaml => format!("---\n{}", yaml(&value())),
        }
    }
}

/// A value as a YAML document in block style. Texts are quoted as in JSON, which YAML reads.
fn yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(_) | Value::Array(_) => put_yaml(&mut out, value, 0),
        scalar => out.push_str(&format!("{scalar}\n")),
    }
    out
}

/// Puts the lines of a value that stands behind `indent` blanks.
fn put_yaml(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                out.push_str(&format!("{:indent$}{name}:", ""));
                put_nested(out, field, indent);
            }
        }
        Value::Array(members) if !members.is_empty() => {
            for member in members {
                // The dash stands where the first line of the member would be indented.
                let at = out.len();
                put_yaml(out, member, indent + 2);
                out.replace_range(at + indent..at + indent + 1, "-");
            }
        }
        scalar => out.push_str(&format!("{:indent$}{scalar}\n", "")),
    }
}

fn put_nested(out: &mut String, value: &Value, indent: usize) {
    let is_block = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(members) => !members.is_empty(),
        _ => false,
    };
    if is_block {
        out.push('\n');
        put_yaml(out, value, indent + 2);
    } else {
        out.push_str(&format!(" {value}\n"));
    }
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
    fn yaml_nests_and_quotes() {
        let value =
            serde_json::json!({ "a": [1, { "b": "x: y", "c": null }], "d": {}, "e": { "f": [true] } });
        let expected = "a:\n  - 1\n  - b: \"x: y\"\n    c: null\nd: {}\ne:\n  f:\n    - true\n";
        assert_eq!(yaml(&value), expected);
        assert_eq!(yaml(&serde_json::json!([])), "[]\n");
    }

    #[test]
    fn tables_are_aligned() {
        let mut table = Table::new(&["NAME", "COUNT"]);
        table.row(&["a", "1"]);
        table.row(&["long name", "1000"]);
        assert_eq!(table.render(), "NAME       COUNT\na              1\nlong name   1000\n");
    }
}
