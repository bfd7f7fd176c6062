//! From flags, files and the environment to the configuration in effect.

use std::path::PathBuf;

use super::{failures::bad_file, machine};
use crate::base::error::Fatal;
use crate::base::limits::SHARDS_MAX;
use crate::config::broker::BrokerConfig;
use crate::config::source::{Loader, Source};

/// What `corelog serve` was told. Everything else is configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub data_dir: Option<PathBuf>,
    pub listen: Option<String>,
    pub shards: Option<u16>,
    /// The name of a driver, or `auto`.
    pub runtime: Option<String>,
    pub config_file: Option<PathBuf>,
    pub dev: bool,
    /// Written when the broker serves: the bound address and a newline.
    pub ready_file: Option<PathBuf>,
    /// `key=value` pairs.
    pub set: Vec<String>,
}

/// The configuration in effect: defaults, file, environment, flags.
pub fn configure(options: &Options) -> Result<BrokerConfig, Fatal> {
    let mut loader = Loader::default();
    if options.dev {
        loader.dev();
    }
    if let Some(path) = &options.config_file {
        let text = std::fs::read_to_string(path).map_err(|e| bad_file(path, &e))?;
        loader.file(&path.display().to_string(), &text)?;
    }
    loader.env(std::env::vars())?;
    if let Some(dir) = &options.data_dir {
        loader.set(Source::Flag, "log.dirs", &dir.display().to_string())?;
    }
    if let Some(listen) = &options.listen {
        let listener = if listen.contains("://") { listen.clone() } else { format!("PLAINTEXT://{listen}") };
        loader.set(Source::Flag, "listeners", &listener)?;
    }
    if let Some(shards) = options.shards {
        loader.set(Source::Flag, "shards", &shards.to_string())?;
    }
    if let Some(runtime) = &options.runtime {
        loader.set(Source::Flag, "runtime", runtime)?;
    }
    for pair in &options.set {
        let (key, value) = pair.split_once('=').ok_or_else(|| Fatal {
            code: "bad-config-key",
            summary: format!("-X {pair} is not key=value"),
            found: pair.clone(),
            means: "a broker setting is a name and a value".into(),
            tries: vec!["-X num.partitions=4".into()],
        })?;
        loader.set(Source::Flag, key, value)?;
    }
    let mut config = loader.finish()?;
    let cpus = machine::cpus(config.cpus.as_deref())?;
    if config.shards == 0 {
        config.shards = cpus.len().clamp(1, SHARDS_MAX) as u16;
    }
    if usize::from(config.shards) > cpus.len() {
        let (shards, cpus) = (config.shards, cpus.len());
        config
            .notes
            .push(format!("{shards} shards share {cpus} CPUs: each is slower than on one of its own"));
    }
    Ok(config)
}
