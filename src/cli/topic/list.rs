//! `corelog topic list`.

use clap::Args;
use serde_json::json;

use crate::cli::exit::Outcome;
use crate::cli::output::{Format, Table, print, print_json};
use crate::cli::target::Target;

#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    target: Target,
    /// Show internal topics too
    #[arg(short, long)]
    internal: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(args: &ListArgs) -> Outcome {
    let mut topics = args.target.cluster()?.list_topics()?;
    topics.retain(|t| args.internal || !t.internal);
    if args.format == Format::Json {
        let list = topics.iter().map(|t| {
            json!({
                "topic": t.name, "id": t.id.to_kafka_text(), "partitions": t.partitions.len(),
                "replicas": t.partitions.first().map_or(0, |p| p.replicas.len()), "internal": t.internal,
            })
        });
        return print_json(&list.collect());
    }
    let mut table = Table::new(&["NAME", "PARTITIONS", "REPLICAS"]);
    for topic in &topics {
        let replicas = topic.partitions.first().map_or(0, |p| p.replicas.len());
        table.row(&[topic.name.clone(), topic.partitions.len().to_string(), replicas.to_string()]);
    }
    print(&table.render())
}
