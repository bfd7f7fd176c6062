//! A Rust source file as the rules see it: the text as written, and the same text with comments, literals and test code blanked
//! out, line for line.

use std::path::Path;

pub struct Source {
    /// Path inside the repository, with `/`.
    pub path: String,
    pub raw: String,
    /// Comments and literals are spaces. Line numbers equal those of `raw`.
    pub bare: String,
    /// `bare` without what only tests compile; empty for a file of tests.
    pub code: String,
}

impl Source {
    pub fn new(path: &str, raw: String) -> Source {
        let bare = blank_comments_and_literals(&raw);
        let of_tests = path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/");
        let code = if of_tests { String::new() } else { blank_test_items(&bare) };
        Source { path: path.to_string(), raw, bare, code }
    }

    /// The module path below the crate root: `src/log/format.rs` is `log::format`, `src/log/mod.rs` is `log`.
    pub fn module(&self) -> String {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let inner = inner.strip_suffix("/mod").unwrap_or(inner);
        if inner == "lib" { String::new() } else { inner.replace('/', "::") }
    }

    pub fn is_src(&self) -> bool {
        self.path.starts_with("src/")
    }

    pub fn is_hot(&self) -> bool {
        self.raw.starts_with("//! Hot path.")
    }

    /// Lines outside test code: what the size limit counts.
    pub fn lines_counted(&self) -> usize {
        let test_lines = self
            .bare
            .lines()
            .zip(self.code.lines())
            .filter(|(all, kept)| !all.trim().is_empty() && kept.trim().is_empty())
            .count();
        self.raw.lines().count() - test_lines
    }
}

/// All Rust sources below `folder` of the repository, by path.
pub fn collect(root: &Path, folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let inside =
                    path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
                found.push(Source::new(&inside, std::fs::read_to_string(&path).expect("a UTF-8 source")));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The line number, from 1, of a byte position.
pub fn line_of(text: &str, position: usize) -> usize {
    text.as_bytes()[..position].iter().filter(|b| **b == b'\n').count() + 1
}

fn blank_comments_and_literals(raw: &str) -> String {
    let bytes = raw.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_or_comment_end(bytes, at);
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(bytes[at..end].iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    String::from_utf8(out).expect("only whole literals and comments are replaced")
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn literal_or_comment_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return at + block_comment_len(rest);
    }
    match rest[0] {
        b'"' => at + quoted_len(rest),
        b'r' | b'b' if !after_word => at + prefixed_literal_len(rest),
        b'\'' => at + char_len(rest),
        _ => at,
    }
}

fn block_comment_len(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn quoted_len(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Length of `r"..."`, `r#"..."#`, `b"..."`, `br"..."` or `b'.'`; 0 when it is a plain word.
fn prefixed_literal_len(rest: &[u8]) -> usize {
    let prefix = if rest.starts_with(b"br") { 2 } else { 1 };
    let raw = rest[prefix - 1] == b'r';
    let hashes = if raw { rest[prefix..].iter().take_while(|b| **b == b'#').count() } else { 0 };
    let open = prefix + hashes;
    match rest.get(open) {
        Some(b'"') if raw => {
            let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
            let body = &rest[open + 1..];
            let found = body.windows(close.len()).position(|w| w == close);
            found.map_or(rest.len(), |p| open + 1 + p + close.len())
        }
        Some(b'"') => open + quoted_len(&rest[open..]),
        Some(b'\'') if !raw => open + char_len(&rest[open..]),
        _ => 0,
    }
}

/// Length of a character literal; 0 for a lifetime.
fn char_len(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        return rest.iter().skip(3).position(|b| *b == b'\'').map_or(0, |p| p + 4);
    }
    let width = match rest.get(1) {
        Some(b) if *b >= 0xf0 => 4,
        Some(b) if *b >= 0xe0 => 3,
        Some(b) if *b >= 0xc0 => 2,
        _ => 1,
    };
    if rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
}

/// Blanks each item under `#[cfg(test)]`: up to its closing brace, or its semicolon when no brace comes first.
fn blank_test_items(bare: &str) -> String {
    let mut out = bare.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = bare[from..].find("#[cfg(test)]") {
        let start = from + found;
        let end = item_end(bare.as_bytes(), start + "#[cfg(test)]".len());
        for byte in &mut out[start..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        from = end;
    }
    String::from_utf8(out).expect("items are replaced whole")
}

fn item_end(bytes: &[u8], from: usize) -> usize {
    let (mut braces, mut brackets) = (0i32, 0i32);
    for (i, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets -= 1,
            b'{' => braces += 1,
            b'}' if braces == 1 => return i + 1,
            b'}' => braces -= 1,
            b';' if braces == 0 && brackets == 0 => return i + 1,
            _ => {}
        }
    }
    bytes.len()
}
