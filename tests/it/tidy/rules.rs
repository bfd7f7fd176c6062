//! The rules that look at one file. Each returns what it found, as lines for a person.

use super::source::{Source, line_of};

pub const LINES_WARN: usize = 600;
pub const LINES_MAX: usize = 1000;
pub const FUNCTION_LINES_MAX: usize = 70;

/// Words that a file opening with `//! Hot path.` must not contain.
const HOT_BANNED: &[&str] = &[
    "format!",
    "Mutex",
    "RwLock",
    "dyn ",
    "println!",
    "tracing::",
    "Box::new",
    ".to_string()",
    "thread::sleep",
];

/// Modules that run in the simulator, and what would let the real world in.
const SANS_IO: &[&str] = &["log", "controller", "coordinator", "router", "shard"];
const SANS_IO_BANNED: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "Instant::now",
    "SystemTime::now",
    "thread_rng",
    "RandomState",
    "HashMap::new(",
    "HashMap::with_capacity(",
    "HashSet::new(",
    "HashSet::with_capacity(",
];
/// (file, word): tools that read the files of a stopped broker, and values that only carry an address. The list only shrinks.
const SANS_IO_ALLOWED: &[(&str, &str)] = &[];

/// `with_capacity(` in `wire` is where a count from a frame becomes memory: (file, how many are proven to be bounded).
const WIRE_CAPACITY_ALLOWED: &[(&str, usize)] = &[];

/// Files longer than [`LINES_MAX`]: (file, lines). The list only shrinks.
const LONG_FILES: &[(&str, usize)] = &[];

/// Names that say nothing about what lives there.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc", "manager"];

pub fn unsafe_only_in_io(file: &Source) -> Vec<String> {
    if file.path.starts_with("src/io/") {
        return Vec::new();
    }
    words(&file.bare, "unsafe").map(|at| report(file, at, "`unsafe` belongs in src/io")).collect()
}

/// Over the limit fails; an exception that is no longer needed, or that is larger than needed, fails too.
pub fn file_size(file: &Source) -> Vec<String> {
    size_findings(file, LONG_FILES)
}

pub fn size_findings(file: &Source, exceptions: &[(&str, usize)]) -> Vec<String> {
    if !file.is_src() {
        return Vec::new();
    }
    let lines = file.lines_counted();
    match exceptions.iter().find(|(path, _)| *path == file.path) {
        Some((_, allowed)) if lines > *allowed => {
            vec![format!("{}: {lines} lines, {allowed} allowed", file.path)]
        }
        Some((_, allowed)) if lines < *allowed => {
            vec![format!("{}: {lines} lines: lower its exception from {allowed}, or remove it", file.path)]
        }
        None if lines > LINES_MAX => {
            vec![format!("{}: {lines} lines, over {LINES_MAX}: split it", file.path)]
        }
        _ => Vec::new(),
    }
}

pub fn function_size(file: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for at in words(&file.code, "fn") {
        let Some(open) = body_start(&file.code, at) else { continue };
        let close = matching_brace(&file.code, open);
        let body = &file.code[open + 1..close];
        let lines = body.lines().filter(|l| !l.trim().is_empty()).count();
        if lines > FUNCTION_LINES_MAX {
            findings.push(report(
                file,
                at,
                &format!("{lines} lines of code in one function, over {FUNCTION_LINES_MAX}"),
            ));
        }
    }
    findings
}

pub fn hot_words(file: &Source) -> Vec<String> {
    if file.is_hot() { banned(file, HOT_BANNED, "on the hot path", &[]) } else { Vec::new() }
}

pub fn sans_io(file: &Source) -> Vec<String> {
    let top = file.module();
    let top = top.split("::").next().unwrap_or_default();
    if !file.is_src() || !SANS_IO.contains(&top) {
        return Vec::new();
    }
    let mut findings =
        banned(file, SANS_IO_BANNED, "in a module that runs in the simulator", SANS_IO_ALLOWED);
    findings.extend(default_hashers(file, "HashMap", 3));
    findings.extend(default_hashers(file, "HashSet", 2));
    findings
}

/// `HashMap<K, V>` without a hasher iterates in another order in each process.
fn default_hashers(file: &Source, name: &str, parameters: usize) -> Vec<String> {
    let mut findings = Vec::new();
    for at in words(&file.code, name) {
        let rest = &file.code[at + name.len()..];
        let rest = rest.strip_prefix("::").unwrap_or(rest);
        if rest.starts_with('<') && type_arguments(rest) < parameters {
            findings.push(report(
                file,
                at,
                &format!("`{name}` with the default hasher: name a hasher, or use a BTree"),
            ));
        }
    }
    findings
}

fn type_arguments(generics: &str) -> usize {
    let (mut depth, mut count) = (0, 1);
    let mut previous = ' ';
    for c in generics.chars() {
        match c {
            '<' | '(' | '[' => depth += 1,
            '>' if previous == '-' => {}
            '>' | ')' | ']' => depth -= 1,
            ',' if depth == 1 => count += 1,
            _ => {}
        }
        previous = c;
        if depth == 0 {
            break;
        }
    }
    count
}

/// Unfinished work has an issue, not a word in the source.
pub fn unfinished(file: &Source) -> Vec<String> {
    let marks =
        [["TO", "DO"], ["FIX", "ME"], ["X", "XX"], ["todo", "!"], ["unimplemented", "!"], ["#[ign", "ore"]];
    let marks = marks.map(|halves| halves.concat());
    let found = marks.iter().flat_map(|mark| file.raw.match_indices(mark.as_str()));
    found.map(|(at, mark)| format!("{}:{}: `{mark}`", file.path, line_of(&file.raw, at))).collect()
}

pub fn wire_capacity(file: &Source) -> Vec<String> {
    capacity_findings(file, WIRE_CAPACITY_ALLOWED)
}

pub fn capacity_findings(file: &Source, allowed: &[(&str, usize)]) -> Vec<String> {
    if !file.path.starts_with("src/wire/") {
        return Vec::new();
    }
    let found = file.code.matches("with_capacity(").count();
    let allowed = allowed.iter().find(|(path, _)| *path == file.path).map_or(0, |(_, count)| *count);
    match found.cmp(&allowed) {
        std::cmp::Ordering::Equal => Vec::new(),
        std::cmp::Ordering::Greater => {
            let why = "is its argument bounded by bytes that are there? Then count it in tests/it/tidy";
            vec![format!("{}: {found} with_capacity( calls, {allowed} proven: {why}", file.path)]
        }
        std::cmp::Ordering::Less => {
            vec![format!("{}: {found} with_capacity( calls: lower its count in tests/it/tidy", file.path)]
        }
    }
}

/// Each folder's `mod.rs` says what it is; no name says nothing.
pub fn says_what_it_is(file: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let of_tests = file.path.contains("/tests/");
    if file.path.ends_with("/mod.rs") && !of_tests && !file.raw.starts_with("//!") {
        findings.push(format!("{}: opens without `//!`", file.path));
    }
    let empty = |part: &&str| EMPTY_NAMES.contains(&part.trim_end_matches(".rs"));
    findings
        .extend(file.path.split('/').find(empty).map(|part| format!("{}: `{part}` says nothing", file.path)));
    findings
}

/// An exception that names no file is stale.
pub fn stale_exceptions(files: &[Source]) -> Vec<String> {
    let named = LONG_FILES.iter().map(|(p, _)| p).chain(WIRE_CAPACITY_ALLOWED.iter().map(|(p, _)| p));
    let named = named.chain(SANS_IO_ALLOWED.iter().map(|(p, _)| p));
    named
        .filter(|path| files.iter().all(|f| f.path != **path))
        .map(|p| format!("exception for {p}, which is gone"))
        .collect()
}

fn banned(file: &Source, list: &[&str], place: &str, allowed: &[(&str, &str)]) -> Vec<String> {
    let mut findings = Vec::new();
    for word in list.iter().filter(|w| !allowed.contains(&(file.path.as_str(), **w))) {
        let found = file.code.match_indices(word);
        findings.extend(found.map(|(at, _)| report(file, at, &format!("`{}` {place}", word.trim()))));
    }
    findings
}

fn report(file: &Source, at: usize, what: &str) -> String {
    format!("{}:{}: {what}", file.path, line_of(&file.bare, at))
}

/// Positions of `word` as a whole word.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        !text[..*at].ends_with(part_of_word) && !text[*at + word.len()..].starts_with(part_of_word)
    })
}

/// The opening brace of the function declared at `at`; none for a declaration or a function pointer type.
fn body_start(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0i32;
    for (i, c) in code[at..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' if depth == 0 => return None,
            ')' | ']' => depth -= 1,
            ';' | '=' | ',' if depth == 0 && !code[at..at + i].contains("where") => return None,
            ';' if depth == 0 => return None,
            '{' if depth == 0 => return Some(at + i),
            _ => {}
        }
    }
    None
}

fn matching_brace(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (i, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + i;
        }
    }
    code.len()
}
