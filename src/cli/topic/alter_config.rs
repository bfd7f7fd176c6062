//! `corelog topic alter-config`.

use clap::Args;
use serde_json::json;

use super::key_value;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::output::Format;
use crate::cli::target::Target;
use crate::client::admin::Change;

#[derive(Args, Debug)]
pub struct AlterConfigArgs {
    #[command(flatten)]
    target: Target,
    /// Topics to change
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// A new value; may be repeated
    #[arg(short, long, value_parser = key_value, value_name = "KEY=VALUE")]
    set: Vec<(String, String)>,
    /// Back to the default; may be repeated
    #[arg(short, long, value_name = "KEY")]
    delete: Vec<String>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(args: &AlterConfigArgs) -> Outcome {
    let set = args.set.iter().map(|(name, value)| Change::Set { name: name.clone(), value: value.clone() });
    let delete = args.delete.iter().map(|name| Change::Delete { name: name.clone() });
    let changes: Vec<Change> = set.chain(delete).collect();
    if changes.is_empty() {
        return Err(Failure::usage(
            "nothing to change",
            &["--set retention.ms=3600000", "--delete retention.ms"],
        ));
    }
    let mut cluster = args.target.cluster()?;
    for name in &args.names {
        cluster.alter_topic(name, &changes)?;
    }
    args.format.print(
        || args.names.iter().map(|n| format!("{n} changed\n")).collect(),
        || args.names.iter().map(|n| json!({ "topic": n, "status": "changed" })).collect(),
    )
}
