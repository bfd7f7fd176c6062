//! The fuzzers' corpus, fed to the same functions as the fuzzers (`fuzz/fuzz_targets`): what was found once stays found.

use std::path::Path;

use corelog::{log, wire::fuzz};

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for file in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = file.expect("a file").path();
        let data = std::fs::read(&path).expect("readable");
        // Named before it runs: a panic then says which one it was.
        println!("{}", path.display());
        run(&data);
        count += 1;
    }
    assert!(count > 0, "no corpus for {target}");
}

#[test]
fn splitter() {
    replay("splitter", fuzz::splitter);
}

#[test]
fn requests() {
    replay("requests", fuzz::requests);
}

#[test]
fn responses() {
    replay("responses", fuzz::responses);
}

#[test]
fn batches() {
    replay("batches", fuzz::batches);
}

#[test]
fn recovery() {
    replay("recovery", log::fuzz::recovery);
}

#[test]
fn checkpoints() {
    replay("checkpoints", log::fuzz::checkpoints);
}
