//! `corelog topic trim`: DeleteRecords.

use clap::Args;
use serde_json::json;

use super::confirm;
use crate::cli::consume_from::{self, From};
use crate::cli::exit::Outcome;
use crate::cli::output::{Format, Table};
use crate::cli::target::Target;
use crate::client::cluster::Cluster;

#[derive(Args, Debug)]
pub struct TrimArgs {
    #[command(flatten)]
    target: Target,
    /// Topic to trim
    #[arg(value_name = "NAME")]
    name: String,
    /// Everything below goes: an offset, end, -N (keep the last N), s@MS (keep what is from this time on)
    #[arg(short, long, allow_hyphen_values = true, value_parser = From::parse, value_name = "OFFSET")]
    offset: From,
    /// Partitions to trim, 0,1,...; all by default
    #[arg(short, long, value_delimiter = ',', value_name = "N,...")]
    partition: Vec<i32>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(args: &TrimArgs) -> Outcome {
    let mut settings = args.target.settings()?;
    settings.auto_create = false;
    let mut cluster = Cluster::new(settings);
    let ranges = cluster.offset_ranges(&args.name)?;
    let chosen = |p: &i32| args.partition.is_empty() || args.partition.contains(p);
    let partitions: Vec<i32> = ranges.keys().copied().filter(chosen).collect();
    let wanted = consume_from::resolve(&mut cluster, &args.name, &partitions, &[args.offset])?.from;
    let gone: i64 = wanted.iter().map(|(p, offset)| (offset.min(&ranges[p].1) - ranges[p].0).max(0)).sum();
    if !args.dry_run {
        confirm(&format!("Delete {gone} records of {}?", args.name), args.yes)?;
    }
    let mut table = Table::new(&["PARTITION", "OLD START", "NEW START", "END"]);
    let mut results = Vec::new();
    for (partition, offset) in wanted {
        let (start, end) = ranges[&partition];
        let new_start = if args.dry_run {
            offset.clamp(start, end)
        } else {
            cluster.delete_records(&args.name, partition, offset)?
        };
        table.row(&[i64::from(partition), start, new_start, end]);
        results
            .push(json!({ "partition": partition, "old_start": start, "new_start": new_start, "end": end }));
    }
    args.format.print(
        || table.render(),
        || json!({ "topic": args.name, "dry_run": args.dry_run, "partitions": results }),
    )
}
