//! How a unit test says that this machine cannot run it.

use std::fmt::Display;
use std::io::Write;

/// Past the harness, which shows nothing of what a passing test prints.
pub fn skip(test: &str, why: impl Display) {
    // In one write, as tests run side by side; behind a line end, as the harness may be in the middle of a line.
    let why = why.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let _ = std::io::stderr().write_all(format!("\nSKIPPED io::{test}: {why}\n").as_bytes());
}
