//! The broker that a command talks to, and the client settings that go with it.

use clap::Args;

use crate::cli::exit::{Exit, Failure};
use crate::client::cluster::Cluster;
use crate::client::settings::{BadSetting, KEYS, Settings, brokers};

#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Brokers to begin with, HOST:PORT,...
    #[arg(
        short = 'b',
        long,
        env = "CORELOG_BROKERS",
        default_value = "127.0.0.1:9092",
        visible_alias = "bootstrap-server",
        value_name = "HOST:PORT,..."
    )]
    pub brokers: String,
    /// A client setting under Kafka's name; `-X list` prints them
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

impl Target {
    /// The settings asked for. `-X list` prints the keys and ends the program.
    pub fn settings(&self) -> Result<Settings, Failure> {
        let mut settings = Settings { brokers: brokers(&self.brokers), ..Settings::default() };
        for item in &self.settings {
            if item == "list" {
                list_and_exit();
            }
            let Some((key, value)) = item.split_once('=') else {
                return Err(Failure::usage(format!("-X {item}: KEY=VALUE is needed"), &["-X list"]));
            };
            settings.set(key, value).map_err(|bad| explain(&bad))?;
        }
        if settings.brokers.is_empty() {
            return Err(Failure::usage("no broker address", &["-b 127.0.0.1:9092"]));
        }
        Ok(settings)
    }

    pub fn cluster(&self) -> Result<Cluster, Failure> {
        Ok(Cluster::new(self.settings()?))
    }
}

fn explain(bad: &BadSetting) -> Failure {
    match bad {
        BadSetting::Unknown { key, nearest: None } => Failure::plain(
            Exit::Usage,
            "bad-config-key",
            format!("no client setting is called {key}"),
            "",
            &["-X list"],
        ),
        BadSetting::Unknown { key, nearest: Some(nearest) } => Failure::plain(
            Exit::Usage,
            "bad-config-key",
            format!("no client setting is called {key}"),
            &format!("the nearest name is {nearest}"),
            &[&format!("-X {nearest}=..."), "-X list"],
        ),
        BadSetting::Value { key, value, doc } => Failure::plain(
            Exit::Usage,
            "bad-config-value",
            format!("{key} cannot be {value}"),
            &format!("{key}: {doc}"),
            &["-X list"],
        ),
    }
}

fn list_and_exit() -> ! {
    for key in KEYS {
        println!("{:<40} {}", key.name, key.doc);
    }
    std::process::exit(0)
}
