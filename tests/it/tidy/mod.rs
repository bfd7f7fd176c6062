//! The rules of the house that a machine can check: this test reads the repository itself. A rule that finds nothing in a bad
//! sample would be no rule, so each has one.

mod arrows;
mod rules;
mod source;

use std::path::Path;

use source::Source;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn repository() -> Vec<Source> {
    ["src", "tests", "benches"].iter().flat_map(|folder| source::collect(root(), folder)).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).expect("a file of the repository")
}

fn tables() -> (arrows::Table, arrows::Table) {
    let lib = read("src/lib.rs");
    (arrows::table(&lib, "module"), arrows::table(&lib, "crate"))
}

/// Everything found in one file.
fn findings(file: &Source) -> Vec<String> {
    let (modules, crates) = tables();
    let mut found = arrows::modules(file, &modules);
    found.extend(arrows::crates(file, &crates));
    let per_file = [
        rules::unsafe_only_in_io,
        rules::file_size,
        rules::function_size,
        rules::hot_words,
        rules::sans_io,
        rules::unfinished,
        rules::wire_capacity,
        rules::says_what_it_is,
    ];
    found.extend(per_file.iter().flat_map(|rule| rule(file)));
    found
}

#[test]
fn the_repository_is_tidy() {
    let files = repository();
    assert!(files.len() > 10, "the sources were not found");
    let (modules, crates) = tables();
    assert!(modules.len() > 10 && crates.len() > 10, "the tables of src/lib.rs were not found");
    let mut found: Vec<String> = files.iter().flat_map(findings).collect();
    found.extend(arrows::homeless(&read("Cargo.toml"), &crates));
    found.extend(rules::stale_exceptions(&files));
    for file in files.iter().filter(|f| f.is_src() && f.lines_counted() > rules::LINES_WARN) {
        eprintln!("warning: {}: {} lines", file.path, file.lines_counted());
    }
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
}

/// Fails unless the sample, placed at `path`, yields exactly `count` findings.
fn check(path: &str, sample: &str, count: usize) {
    let found = findings(&Source::new(path, sample.to_string()));
    assert_eq!(found.len(), count, "{path}: {sample:?} gave {found:?}");
}

#[test]
fn arrows_that_are_not_in_the_table_are_found() {
    check("src/base/x.rs", "use crate::io::Op;", 1);
    check("src/base/x.rs", "use crate::base::ids::Uuid;", 0);
    check("src/wire/x.rs", "use crate::{base::ids, io::{Op, Done}};", 2);
    check("src/wire/x.rs", "fn f() { crate::log::Log::new() }", 1);
    check("src/coordinator/x.rs", "use crate::{base, log};", 1);
    check("src/server/x.rs", "use crate::{io::Op,\n    log::{self as l, Log}};", 2);
    check("src/log/x.rs", "use crate::wire::batch::Header; use crate::wire::msg;", 1);
    check("src/cli/x.rs", "use crate::log::inspect::dump; use crate::log::Log;", 1);
    check("src/base/x/y.rs", "use super::super::super::io;", 1);
    check("src/base/x/y.rs", "use super::super::ids;", 0);
    check("src/nowhere/x.rs", "", 1);
    check("src/main.rs", "fn main() { corelog::cli::main() }", 0);
    check("src/main.rs", "use corelog::io;", 1);
    check("src/base/x.rs", "#[cfg(test)]\nmod tests { use crate::io::Op; }", 0);
    check("src/base/x.rs", "// crate::io is not used\nconst S: &str = \"crate::io\";", 0);
}

#[test]
fn crates_outside_their_rooms_are_found() {
    check("src/log/x.rs", "fn f() { libc::getpid() }", 1);
    check("src/io/x.rs", "fn f() { libc::getpid() }", 0);
    check("src/client/x.rs", "use kafka_wire::MetadataRequest;", 1);
    check("src/base/metrics.rs", "use hdrhistogram::Histogram;", 0);
    check("src/base/ids.rs", "use hdrhistogram::Histogram;", 1);
    check("src/wire/x.rs", "use ::clap::Parser;", 1);
    check("src/base/x.rs", "use serde;", 1);
    check("src/base/x.rs", "fn f(bytes: &[u8]) { let crc32c = self::crc32c(bytes); x::crc32c::y() }", 0);
    let rooms = arrows::table("//! | crate | rooms |\n//! |---|---|\n//! | libc | io |\n", "crate");
    let cargo = "[package]\n\n[dependencies]\nlibc = \"0.2\"\nleft-pad = \"1\"\n[lints]\na = 1\n";
    assert_eq!(arrows::homeless(cargo, &rooms).len(), 1);
}

#[test]
fn unsafe_outside_io_is_found() {
    check("src/base/x.rs", "fn f() { unsafe { g() } }", 1);
    check("src/base/x.rs", "// unsafe\nfn unsafely() {}", 0);
    check("src/io/x.rs", "fn f() { unsafe { g() } }", 0);
}

#[test]
fn long_files_and_functions_are_found() {
    let line = "const A: u8 = 0;\n";
    check("src/base/x.rs", &line.repeat(rules::LINES_MAX), 0);
    check("src/base/x.rs", &line.repeat(rules::LINES_MAX + 1), 1);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", line.repeat(rules::LINES_MAX));
    check("src/base/x.rs", &tests, 0);
    let file = Source::new("src/base/x.rs", line.repeat(1200));
    assert_eq!(rules::size_findings(&file, &[("src/base/x.rs", 1200)]).len(), 0);
    assert_eq!(rules::size_findings(&file, &[("src/base/x.rs", 1199)]).len(), 1);
    assert_eq!(rules::size_findings(&file, &[("src/base/x.rs", 1300)]).len(), 1, "an exception only shrinks");
    let body = |lines: usize| {
        format!("fn f(a: [u8; 4]) -> u8 {{\n{}\n    // said\n}}\n", "    g();\n".repeat(lines))
    };
    check("src/base/x.rs", &body(rules::FUNCTION_LINES_MAX), 0);
    check("src/base/x.rs", &body(rules::FUNCTION_LINES_MAX + 1), 1);
}

#[test]
fn words_banned_on_the_hot_path_are_found() {
    let body = "fn f() { let a = format!(\"x\"); let b: &dyn Send = &1; Box::new(3).to_string(); }";
    check("src/log/x.rs", &format!("//! Hot path. Appends.\n{body}"), 4);
    check("src/log/x.rs", body, 0);
    check("src/log/x.rs", "//! Hot path.\nuse std::sync::{Mutex, RwLock};", 2);
    check("src/log/x.rs", "//! Hot path.\nfn f() { println!(\"\"); std::thread::sleep(d) }", 3);
}

#[test]
fn the_outside_world_is_found_in_the_core() {
    check("src/shard/x.rs", "use std::fs::File;", 1);
    check("src/shard/x.rs", "fn f() { std::time::Instant::now(); SystemTime::now(); }", 2);
    check("src/log/x.rs", "use std::net::TcpStream; fn f() { thread_rng() }", 2);
    check("src/router/x.rs", "struct A { m: HashMap<u8, Vec<(u8, u8)>> }", 1);
    check("src/router/x.rs", "struct A { m: HashMap<u8, u8, Seeded>, s: HashSet<u8, Seeded> }", 0);
    check("src/router/x.rs", "fn f() { HashMap::new(); x.collect::<HashSet<_>>() }", 2);
    check("src/client/x.rs", "use std::net::TcpStream;", 0);
}

#[test]
fn unfinished_work_is_found() {
    check("src/base/x.rs", concat!("// TO", "DO: later"), 1);
    check("src/base/x.rs", concat!("fn f() { todo", "!() }"), 1);
    check("tests/it/x.rs", concat!("#[ign", "ore]\nfn f() {}"), 1);
}

#[test]
fn reservations_by_wire_counts_are_found() {
    let sample = "fn f(n: usize) { Vec::with_capacity(n) }";
    check("src/wire/x.rs", sample, 1);
    check("src/log/x.rs", sample, 0);
    let file = Source::new("src/wire/x.rs", sample.to_string());
    assert_eq!(rules::capacity_findings(&file, &[("src/wire/x.rs", 1)]).len(), 0);
    assert_eq!(
        rules::capacity_findings(&file, &[("src/wire/x.rs", 2)]).len(),
        1,
        "an exception only shrinks"
    );
}

#[test]
fn names_that_say_nothing_are_found() {
    check("src/base/utils.rs", "", 1);
    check("src/base/x/mod.rs", "pub mod y;", 1);
    check("src/base/x/mod.rs", "//! What x is.", 0);
}

#[test]
fn literals_and_comments_are_blanked() {
    let file = Source::new(
        "src/base/x.rs",
        "let a = r#\"x\"y\"#; let b = 'c'; let d = b'\\''; fn f<'a>() {} /* a /* b */ c */ z".into(),
    );
    let bare: Vec<&str> = file.bare.split_whitespace().collect();
    assert_eq!(bare.join(" "), "let a = ; let b = ; let d = ; fn f<'a>() {} z");
}
