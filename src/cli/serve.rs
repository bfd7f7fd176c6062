//! `corelog serve`: the arguments of a broker. What they mean is the broker's business.

use std::path::PathBuf;

use clap::Args;

use crate::broker::{self, start::Options};
use crate::cli::exit::{Exit, Failure, Outcome};

#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Directory of the logs; created if it is not there
    #[arg(long, env = "CORELOG_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address for clients; port 0 takes a free one, which is printed
    #[arg(long, env = "CORELOG_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Threads that each own a core and its partitions
    #[arg(long, env = "CORELOG_SHARDS", value_name = "N")]
    pub shards: Option<u16>,
    /// A TOML file with Kafka's property names, or a server.properties
    #[arg(long, env = "CORELOG_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// For a laptop: ./data, one shard, little memory, loopback only
    #[arg(long)]
    pub dev: bool,
    /// Written once the broker answers, with its address in it
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// A broker setting under Kafka's name
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

pub fn run(args: ServeArgs) -> Outcome {
    let options = Options {
        data_dir: args.data_dir,
        listen: args.listen,
        shards: args.shards,
        config_file: args.config,
        dev: args.dev,
        ready_file: args.ready_file,
        set: args.set,
    };
    broker::start::serve(&options).map_err(|fatal| {
        let exit = if fatal.code.starts_with("bad-config") { Exit::Usage } else { Exit::Environment };
        Failure::new(exit, fatal)
    })
}
