//! Bytes that Apache Kafka's own serializers wrote, against every codec of ours (`vectors/README.md` of the design, rules 1-5).
//! The folder is not part of the repository: its path comes from CORELOG_VECTORS, which `scripts/check` sets.

mod hot;
mod messages;
mod records;

use std::path::PathBuf;

use serde_json::Value;

use crate::support::skip;

/// The folder of vectors, or a line that names the test which is skipped without it.
fn folder(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("CORELOG_VECTORS").map(PathBuf::from);
    match &folder {
        None => skip(&format!("vectors::{test}"), "CORELOG_VECTORS is not set"),
        Some(folder) => assert!(folder.join("messages").is_dir(), "no vectors in {}", folder.display()),
    }
    folder
}

/// Unknown tagged fields that the facade takes per structure; one vector carries 130.
const TAGGED_FIELDS_MAX: usize = 16;

/// One vector: a message body, and the same message as Kafka prints it.
struct Vector {
    name: String,
    body: Vec<u8>,
    json: Value,
    /// Carries more tagged fields than we read.
    over_limit: bool,
}

/// The vectors of one message and version.
fn vectors(test: &str, message: &str, version: i16) -> Vec<Vector> {
    let Some(folder) = folder(test) else { return Vec::new() };
    let path = folder.join(format!("messages/{message}/v{version}.json"));
    let file = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file: Value = serde_json::from_str(&file).expect("JSON");
    let vectors = file["vectors"].as_array().expect("a list");
    assert!(!vectors.is_empty());
    vectors
        .iter()
        .map(|v| Vector {
            name: format!("{message} v{version} {}", text(&v["name"])),
            body: hex(text(&v["hex"])),
            json: v["json_value"].clone(),
            over_limit: list(&v["unknown_tagged_fields"]).len() > TAGGED_FIELDS_MAX,
        })
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("not a number: {value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn nullable_text(value: &Value) -> Option<&str> {
    value.as_str()
}

pub fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2) && text.is_ascii());
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex")).collect()
}

/// Base64 in either alphabet, with or without padding.
fn base64(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => panic!("not base64: {text}"),
    };
    let digits: Vec<u8> = text.bytes().filter(|c| *c != b'=').map(digit).collect();
    let mut out = Vec::new();
    for chunk in digits.chunks(4) {
        let word = chunk.iter().fold(0u32, |w, d| w << 6 | u32::from(*d)) << (6 * (4 - chunk.len()));
        out.extend_from_slice(&word.to_be_bytes()[1..chunk.len()]);
    }
    out
}
