//! `corelog log verify`: exit 0 if everything that can be checked is as it was written.

use serde_json::json;

use super::{LogArgs, PartitionDir, unreadable};
use crate::broker::source::IoSource;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output::{Progress, Table, say};
use crate::log::inspect;

pub fn run(args: &LogArgs, source: &mut IoSource<'_>, partitions: &[PartitionDir]) -> Outcome {
    let mut table = Table::new(&["PARTITION", "SEGMENTS", "GROUPS", "BATCHES", "BYTES", "PROBLEMS"]);
    let mut list = Vec::new();
    let (mut problems, mut unfinished) = (Vec::new(), Vec::new());
    let mut progress = Progress::new();
    for (i, partition) in partitions.iter().enumerate() {
        progress.show(|| format!("{i} of {} partitions", partitions.len()));
        let found = inspect::verify(source, &partition.path).map_err(|e| unreadable(&e))?;
        table.row(&[
            partition.name.clone(),
            found.segments.to_string(),
            found.groups.to_string(),
            found.batches.to_string(),
            found.bytes.to_string(),
            found.problems.len().to_string(),
        ]);
        let texts: Vec<String> = found.problems.iter().map(|p| p.to_string()).collect();
        list.push(json!({
            "partition": partition.name, "segments": found.segments, "groups": found.groups, "batches": found.batches,
            "bytes": found.bytes, "problems": texts, "unfinished": found.unfinished.as_ref().map(|place| place.to_string()),
        }));
        problems.extend(texts);
        unfinished.extend(found.unfinished.map(|place| place.to_string()));
    }
    progress.clear();
    args.format.print(|| table.render(), || json!(list))?;
    for place in unfinished {
        say(&format!("unfinished, as a crash leaves it; the next start cuts it off: {place}"));
    }
    if problems.is_empty() {
        return Ok(());
    }
    let tries =
        ["stop the broker and copy the directory before anything else", "corelog log dump --data-dir DIR"];
    Err(Failure::plain(
        Exit::Failed,
        "log-damaged",
        format!("{} problems", problems.len()),
        &problems.join("\n          "),
        &tries,
    ))
}
