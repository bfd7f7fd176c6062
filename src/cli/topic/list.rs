//! `corelog topic list`.

use clap::Args;
use serde_json::json;

use crate::cli::exit::Outcome;
use crate::cli::output::{Format, Table};
use crate::cli::target::Target;
use crate::client::cluster::Topic;

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
    args.format.print(|| table(args.format, &topics), || topics.iter().map(as_json).collect())
}

fn replicas(topic: &Topic) -> usize {
    topic.partitions.first().map_or(0, |p| p.replicas.len())
}

fn as_json(topic: &Topic) -> serde_json::Value {
    json!({
        "topic": topic.name, "id": topic.id.to_kafka_text(), "partitions": topic.partitions.len(),
        "replicas": replicas(topic), "internal": topic.internal,
    })
}

fn table(format: Format, topics: &[Topic]) -> String {
    let wide = format == Format::Wide;
    let headers = ["NAME", "PARTITIONS", "REPLICAS", "ID", "INTERNAL"];
    let mut table = Table::new(if wide { &headers } else { &headers[..3] });
    for topic in topics {
        let mut cells =
            vec![topic.name.clone(), topic.partitions.len().to_string(), replicas(topic).to_string()];
        if wide {
            cells.extend([topic.id.to_kafka_text(), topic.internal.to_string()]);
        }
        table.row(&cells);
    }
    table.render()
}
