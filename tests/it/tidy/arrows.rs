//! Who may use whom, and which crate lives in which room: both tables are read from the doc of `src/lib.rs`.

use std::collections::BTreeMap;

use super::source::{Source, line_of};

/// A table of the crate doc: first cell -> the comma-separated entries of the second.
pub type Table = BTreeMap<String, Vec<String>>;

/// Reads the table whose first header cell is `head` from `//!` lines.
pub fn table(lib: &str, head: &str) -> Table {
    let mut rows = Table::new();
    let mut inside = false;
    for line in lib.lines() {
        let cells =
            line.strip_prefix("//! | ").and_then(|l| l.strip_suffix(" |")).and_then(|l| l.split_once(" | "));
        match cells {
            Some((first, _)) if first == head => inside = true,
            Some((first, second)) if inside => {
                let entries = second.split(',').map(|e| e.trim().to_string()).filter(|e| e != "-").collect();
                rows.insert(first.to_string(), entries);
            }
            Some(_) => {}
            None => inside = inside && line.starts_with("//! |---"),
        }
    }
    rows
}

/// True when `path` is `prefix` or lies inside it.
pub fn within(path: &str, prefix: &str) -> bool {
    path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("::"))
}

/// Every path of ours that the file names outside its own module must be in its module's row.
pub fn modules(file: &Source, rows: &Table) -> Vec<String> {
    let module = file.module();
    if module.is_empty() || !file.is_src() {
        return Vec::new();
    }
    let top = module.split("::").next().unwrap_or_default();
    let Some(allowed) = rows.get(top) else {
        return vec![format!("{}: module `{top}` has no row in the table of src/lib.rs", file.path)];
    };
    let root = if top == "main" { "corelog::" } else { "crate::" };
    let mut findings = climbs_out(file, &module);
    for (position, path) in paths_after(&file.code, root) {
        if !within(&path, top) && !allowed.iter().any(|a| within(&path, a)) {
            let line = line_of(&file.code, position);
            findings
                .push(format!("{}:{line}: `{top}` may not use `{path}` (table in src/lib.rs)", file.path));
        }
    }
    findings
}

/// `super::super::...` that reaches the crate root would walk around the table.
fn climbs_out(file: &Source, module: &str) -> Vec<String> {
    let depth = module.split("::").count();
    let climb = "super::".repeat(depth);
    let found = file.code.match_indices(&climb).map(|(at, _)| {
        format!(
            "{}:{}: `{climb}` reaches the crate root: write `crate::`",
            file.path,
            line_of(&file.code, at)
        )
    });
    found.collect()
}

/// Each `root`-based path in the text with its position; groups in braces are taken apart.
fn paths_after(text: &str, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (position, _) in text.match_indices(root) {
        let before = text[..position].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        expand(&text[position + root.len()..], "", &mut |path| found.push((position, path)));
    }
    found
}

/// Hands each full path of a use tree to `take`; returns the bytes consumed.
fn expand(text: &str, prefix: &str, take: &mut dyn FnMut(String)) -> usize {
    let start = text.len() - text.trim_start().len();
    let rest = &text[start..];
    if let Some(inner) = rest.strip_prefix('{') {
        let mut at = start + 1;
        let mut inner = inner;
        loop {
            let used = expand(inner, prefix, take);
            at += used;
            inner = &inner[used..];
            match inner.chars().next() {
                Some(',') => (at, inner) = (at + 1, &inner[1..]),
                Some('}') => return at + 1,
                // White space, or text that is no use tree.
                Some(c) if c != ';' => (at, inner) = (at + c.len_utf8(), &inner[c.len_utf8()..]),
                _ => return at,
            }
        }
    }
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    if word == 0 {
        return start;
    }
    let path =
        if prefix.is_empty() { rest[..word].to_string() } else { format!("{prefix}::{}", &rest[..word]) };
    let path = path.strip_suffix("::self").unwrap_or(&path).to_string();
    match rest[word..].strip_prefix("::") {
        Some(deeper) if deeper.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '{') => {
            start + word + 2 + expand(deeper, &path, take)
        }
        _ => {
            take(path);
            start + word + rename_len(&rest[word..])
        }
    }
}

/// Length of an ` as name` that follows a path.
fn rename_len(after: &str) -> usize {
    let trimmed = after.trim_start();
    let Some(name) = trimmed.strip_prefix("as ") else { return 0 };
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    after.len() - name.len() + end
}

/// A crate may be named only in its rooms.
pub fn crates(file: &Source, rooms: &Table) -> Vec<String> {
    let module = file.module();
    let mut findings = Vec::new();
    if !file.is_src() {
        return findings;
    }
    for (name, homes) in rooms {
        if homes.iter().any(|home| within(&module, home)) {
            continue;
        }
        for position in crate_mentions(&file.code, name) {
            let line = line_of(&file.code, position);
            findings.push(format!(
                "{}:{line}: crate `{name}` has no business here (rooms in src/lib.rs)",
                file.path
            ));
        }
    }
    findings
}

/// Positions where `name` stands as the first part of a path, or is imported whole.
fn crate_mentions(code: &str, name: &str) -> Vec<usize> {
    let mut found = Vec::new();
    for (position, _) in code.match_indices(name) {
        let before = &code[..position];
        let after = &code[position + name.len()..];
        let joined = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '.');
        let absolute = before.ends_with("::")
            && !before[..before.len() - 2].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '>');
        let imported = before.trim_end().ends_with("use") && after.trim_start().starts_with([';', ' ', 'a']);
        if (!joined || absolute) && (after.starts_with("::") || imported) {
            found.push(position);
        }
    }
    found
}

/// Every dependency of Cargo.toml needs a row: a new crate says where it lives.
pub fn homeless(cargo_toml: &str, rooms: &Table) -> Vec<String> {
    let section = cargo_toml.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let names = section.lines().take_while(|l| !l.starts_with('[')).filter_map(|l| l.split_once('='));
    let names = names.map(|(name, _)| name.trim().replace('-', "_")).filter(|n| !n.starts_with('#'));
    names
        .filter(|n| !rooms.contains_key(n))
        .map(|n| format!("Cargo.toml: crate `{n}` has no rooms in src/lib.rs"))
        .collect()
}
