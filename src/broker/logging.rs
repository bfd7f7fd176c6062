//! Log lines to stderr: text on a terminal, otherwise one JSON object per line with the same fields.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;

use crate::config::broker::BrokerConfig;

/// Installs the subscriber of this process; a second call changes nothing.
pub fn install(config: &BrokerConfig) {
    let level = match config.log_level.as_str() {
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    };
    let terminal = std::io::stderr().is_terminal();
    let json = match config.log_format.as_str() {
        "json" => true,
        "text" => false,
        _ => !terminal,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        // It would tell of a line that cannot be written on stderr again, and end the shard: a full disk may be that of the log, too.
        .log_internal_errors(false);
    let colour = terminal && std::env::var_os("NO_COLOR").is_none();
    // A subscriber that is there already belongs to a test or to the program around us: it stays.
    let _ = if json {
        subscriber.json().flatten_event(true).try_init()
    } else {
        subscriber.with_ansi(colour).try_init()
    };
}
