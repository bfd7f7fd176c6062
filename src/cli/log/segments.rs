//! `corelog log segments`.

use serde_json::json;

use super::{LogArgs, PartitionDir, unreadable};
use crate::broker::source::IoSource;
use crate::cli::exit::Outcome;
use crate::cli::output::Table;
use crate::log::inspect::{self, NoHeader, SegmentFile};

pub fn run(args: &LogArgs, source: &mut IoSource<'_>, partitions: &[PartitionDir]) -> Outcome {
    let mut table =
        Table::new(&["PARTITION", "SEGMENT", "BASE OFFSET", "END OFFSET", "EPOCH", "BYTES", "STATE"]);
    let mut list = Vec::new();
    for partition in partitions {
        let segments = inspect::segments(source, &partition.path).map_err(|e| unreadable(&e))?;
        for segment in &segments {
            let base = segment.header.as_ref().map(|(h, _)| h.base_offset.0).ok();
            let epoch = segment.header.as_ref().map(|(h, _)| h.leader_epoch.0).ok();
            let end = segment.sealed.map(|seal| seal.next_offset.0);
            let cell = |n: Option<i64>| n.map_or("-".to_string(), |n| n.to_string());
            table.row(&[
                partition.name.clone(),
                segment.name.clone(),
                cell(base),
                cell(end),
                cell(epoch.map(i64::from)),
                segment.len.to_string(),
                state(segment),
            ]);
            list.push(json!({
                "partition": partition.name, "segment": segment.name, "ordinal": segment.ordinal, "base_offset": base,
                "end_offset": end, "leader_epoch": epoch, "file_bytes": segment.len, "state": state(segment),
            }));
        }
    }
    args.format.print(|| table.render(), || json!(list))
}

fn state(segment: &SegmentFile) -> String {
    match (&segment.header, segment.sealed) {
        (Ok(_), Some(seal)) => format!("sealed at byte {}", seal.end),
        (Ok(_), None) => "active".to_string(),
        (Err(NoHeader::Empty), _) => "prepared".to_string(),
        (Err(NoHeader::OtherOrdinal(of)), _) => format!("recycled from segment {of}"),
        (Err(NoHeader::Damaged), _) => "header damaged".to_string(),
        (Err(NoHeader::Unreadable), _) => "header unreadable".to_string(),
        (Err(NoHeader::Newer(version)), _) => format!("of a newer release (version {version})"),
    }
}
