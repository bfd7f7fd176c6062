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
    pub shards: Option<String>,
    /// As in `2-5,8`.
    pub cpus: Option<String>,
    /// `broker` or `shards`.
    pub advertise: Option<String>,
    /// The name of a driver, or `auto`.
    pub runtime: Option<String>,
    pub config_file: Option<PathBuf>,
    pub dev: bool,
    /// Written when the broker serves: the bound address and a newline.
    pub ready_file: Option<PathBuf>,
    /// `log.format`, as a flag.
    pub log_format: Option<&'static str>,
    /// `key=value` pairs.
    pub set: Vec<String>,
    /// Environment variables of the command line, which name no configuration key.
    pub own_variables: Vec<String>,
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
    let is_key = |name: &str| !options.own_variables.iter().any(|own| own == name);
    loader.env(std::env::vars().filter(|(name, _)| is_key(name)))?;
    if let Some(format) = options.log_format {
        loader.set(Source::Flag, "log.format", format)?;
    }
    if let Some(dir) = &options.data_dir {
        loader.set(Source::Flag, "log.dirs", &dir.display().to_string())?;
    }
    if let Some(listen) = &options.listen {
        let listener = if listen.contains("://") { listen.clone() } else { format!("PLAINTEXT://{listen}") };
        loader.set(Source::Flag, "listeners", &listener)?;
    }
    let named = [
        ("shards", &options.shards),
        ("cpus", &options.cpus),
        ("advertise", &options.advertise),
        ("runtime", &options.runtime),
    ];
    for (key, value) in named {
        if let Some(value) = value {
            loader.set(Source::Flag, key, value)?;
        }
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
        config.notes.push(crowded(config.shards, cpus.len()));
    }
    Ok(config)
}

fn crowded(shards: u16, cpus: usize) -> String {
    let (of_cpus, fewer) = match cpus {
        1 => ("1 CPU".to_string(), "--shards 1".to_string()),
        _ => (format!("{cpus} CPUs"), format!("--shards {cpus} or fewer")),
    };
    format!(
        "{shards} shards share {of_cpus}: each is slower than on one of its own, which {fewer} gives them"
    )
}
