//! `corelog cluster shards`.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::exit::Outcome;
use crate::cli::output::{Format, Table};
use crate::cli::shards::{self, Shards};
use crate::cli::target::Target;

#[derive(Args, Debug)]
pub struct ShardsArgs {
    #[command(flatten)]
    target: Target,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A column: its header, the field of the document, and how it is shown.
type Column = (&'static str, &'static str, fn(&Value) -> String);

const COLUMNS: &[Column] = &[
    ("SHARD", "shard", plain),
    ("CPU", "cpu", plain),
    ("BUSY %", "busy_permille", percent),
    ("THREAD %", "cpu_permille", percent),
    ("CONNS", "connections", plain),
    ("PARTITIONS", "partitions", plain),
    ("REQUESTS", "requests_total", plain),
    ("COMMITS", "commits_total", plain),
    ("FLUSHES", "flushes_total", plain),
    ("HOPS OUT", "hops_sent_total", plain),
    ("HOPS IN", "hops_served_total", plain),
    ("MOVED OUT", "connections_handed_over_total", plain),
    ("MOVED IN", "connections_adopted_total", plain),
    ("LANE", "lane_depth_max", plain),
];

const WIDE: &[Column] = &[
    ("BROKER", "broker_id", plain),
    ("IN MB", "received_bytes_total", megabytes),
    ("OUT MB", "sent_bytes_total", megabytes),
    ("FETCHED MB", "fetch_sent_bytes_total", megabytes),
    ("COPIED MB", "fetch_copied_bytes_total", megabytes),
    ("COMMITTED MB", "commit_bytes_total", megabytes),
    ("ZEROED MB", "zeroed_bytes_total", megabytes),
    ("SEGMENTS", "segments_made_total", plain),
    ("RECYCLED", "segments_recycled_total", plain),
    ("POOL MiB", "pool_used_bytes", mebibytes),
    ("OF MiB", "pool_total_bytes", mebibytes),
    ("HELD BACK", "hops_held_back_total", plain),
    ("LATE", "hops_late_total", plain),
    ("HOP MB", "hops_copied_bytes_total", megabytes),
    ("ACCEPTED", "connections_accepted_total", plain),
];

pub fn run(args: &ShardsArgs) -> Outcome {
    let shards = shards::ask(&mut args.target.cluster()?)?;
    args.format.print(|| text(args.format, &shards), || as_json(&shards))
}

fn text(format: Format, shards: &Shards) -> String {
    let columns = COLUMNS.iter().chain(WIDE.iter().filter(|_| format == Format::Wide));
    let columns: Vec<&Column> = columns.collect();
    let mut table = Table::new(&columns.iter().map(|(header, ..)| *header).collect::<Vec<_>>());
    for row in shards.rows() {
        table.row(&columns.iter().map(|(_, field, show)| show(&row[*field])).collect::<Vec<_>>());
    }
    let fact = |name: &str| shards.0[name].as_str().unwrap_or("-").to_string();
    format!(
        "runtime {}   accept {}   version {}\n{}",
        fact("runtime"),
        fact("accept"),
        fact("version"),
        table.render()
    )
}

/// The document without the topics, which are `corelog cluster partitions`.
fn as_json(shards: &Shards) -> Value {
    let part = |name: &str| &shards.0[name];
    json!({
        "version": part("version"), "node_id": part("node_id"), "runtime": part("runtime"), "accept": part("accept"),
        "shards": shards.rows(),
    })
}

fn plain(value: &Value) -> String {
    shards::shown(value.as_u64())
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or("-".into(), |permille| format!("{:.1}", permille / 10.0))
}

fn megabytes(value: &Value) -> String {
    value.as_f64().map_or("-".into(), |bytes| format!("{:.1}", bytes / 1e6))
}

fn mebibytes(value: &Value) -> String {
    value.as_f64().map_or("-".into(), |bytes| format!("{:.1}", bytes / f64::from(1 << 20)))
}
