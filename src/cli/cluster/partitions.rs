//! `corelog cluster partitions`.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::exit::Outcome;
use crate::cli::output::{Format, Table};
use crate::cli::shards::{self, shown};
use crate::cli::target::Target;
use crate::client::cluster::{Cluster, Partition, Topic};

#[derive(Args, Debug)]
pub struct PartitionsArgs {
    #[command(flatten)]
    target: Target,
    /// Topics to show; all by default
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only partitions of this shard
    #[arg(long, value_name = "N")]
    shard: Option<u64>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A partition of a topic, and its owner.
type Line<'a> = (&'a Topic, &'a Partition, Option<u64>);

pub fn run(args: &PartitionsArgs) -> Outcome {
    let mut settings = args.target.settings()?;
    settings.auto_create = false;
    let mut cluster = Cluster::new(settings);
    let topics = match args.topics.is_empty() {
        true => cluster.list_topics()?,
        false => args.topics.iter().map(|name| cluster.topic(name)).collect::<Result<Vec<_>, _>>()?,
    };
    let shards = shards::ask(&mut cluster)?;
    let owners = shards.owners();
    let owner = |topic: &Topic, partition: &Partition| {
        let owners = owners.get(topic.name.as_str())?;
        owners.get(usize::try_from(partition.index).ok()?).copied().flatten()
    };
    let all = topics.iter().flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p)));
    let lines = all.map(|(topic, partition)| (topic, partition, owner(topic, partition)));
    let lines: Vec<Line<'_>> = lines.filter(|line| args.shard.is_none() || line.2 == args.shard).collect();
    args.format.print(|| table(args.format, &lines), || lines.iter().map(as_json).collect())
}

fn table(format: Format, lines: &[Line<'_>]) -> String {
    let wide = format == Format::Wide;
    let headers = ["TOPIC", "PARTITION", "SHARD", "LEADER", "EPOCH", "REPLICAS", "IN SYNC"];
    let mut table = Table::new(if wide { &headers } else { &headers[..4] });
    for (topic, p, owner) in lines {
        let mut cells = vec![topic.name.clone(), p.index.to_string(), shown(*owner), p.leader.to_string()];
        if wide {
            cells.extend([
                p.leader_epoch.to_string(),
                format!("{:?}", p.replicas),
                format!("{:?}", p.in_sync),
            ]);
        }
        table.row(&cells);
    }
    table.render()
}

fn as_json((topic, p, owner): &Line<'_>) -> Value {
    json!({
        "topic": topic.name, "partition": p.index, "shard": owner, "leader": p.leader,
        "leader_epoch": p.leader_epoch, "replicas": p.replicas, "in_sync": p.in_sync,
    })
}
