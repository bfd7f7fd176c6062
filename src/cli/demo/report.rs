//! The demo's small table.

use std::time::Duration;

use super::input::Input;
use super::{DemoArgs, Killed, PARTITIONS};
use crate::cli::units::{short, short_ns};
use crate::loadgen::ledger::{self, Ledger, Verdict};

/// What there is to tell.
pub struct Story<'a> {
    pub args: &'a DemoArgs,
    pub input: &'a Input,
    pub ledgers: &'a [Ledger],
    pub killed: &'a Killed,
    pub verdict: &'a Verdict,
    /// How long reading everything back took.
    pub reading: Duration,
}

impl Story<'_> {
    /// The table; `label` says what an ack meant.
    pub fn text(&self, label: &str) -> String {
        let verdict = self.verdict;
        let records: u64 = self.ledgers.iter().map(|l| l.placed.len() as u64).sum();
        let rows = [
            ("input", self.input_text()),
            (
                "producers",
                format!("{} over TCP, acks=all, idempotent, {PARTITIONS} partitions", self.args.producers),
            ),
            ("durability", format!("{label}   {}", meaning(label))),
            ("throughput", self.throughput(records)),
            ("latency", self.latency()),
            ("killed", self.killing()),
            ("read back", self.reading()),
            (
                "result",
                format!(
                    "acknowledged {records} · lost {} · duplicates {} · changed {} · gaps {}",
                    verdict.lost,
                    verdict.duplicates,
                    verdict.wrong + verdict.replaced,
                    verdict.gaps
                ),
            ),
        ];
        let mut text = String::from("corelog demo\n");
        for (name, value) in rows {
            text.push_str(&format!("  {name:<12}{value}\n"));
        }
        if cfg!(debug_assertions) {
            text.push_str("  DEBUG_BUILD: the figures mean nothing; cargo run --release -- demo\n");
        }
        text
    }

    fn input_text(&self) -> String {
        match self.input {
            Input::Orders => "order events as JSON, keyed by customer".to_string(),
            Input::Lines { lines, truncated, .. } => {
                let file = self.args.file.as_ref().map(|f| f.display().to_string()).unwrap_or_default();
                let part = if *truncated { " (its first 256 MiB)" } else { "" };
                format!("{} lines of {file}{part}", lines.len())
            }
        }
    }

    fn throughput(&self, records: u64) -> String {
        let bytes: u64 = self.ledgers.iter().map(|l| l.bytes).sum();
        let rate = self.killed.acked as f64 / self.killed.seconds.max(0.001);
        let mean_bytes = bytes as f64 / records.max(1) as f64;
        format!("{} records/s   {}B/s   until the kill", short(rate), short(rate * mean_bytes))
    }

    fn latency(&self) -> String {
        let mut latency = ledger::histogram();
        self.ledgers.iter().for_each(|l| latency.add(&l.latency).expect("the same bounds"));
        let at = |q: f64| short_ns(latency.value_at_quantile(q));
        format!(
            "p50 {}   p99 {}   p99.9 {}   until the kill, per record, closed loop",
            at(0.5),
            at(0.99),
            at(0.999)
        )
    }

    fn killing(&self) -> String {
        let outage = self.killed.outage.as_secs_f64();
        format!(
            "SIGKILL after {} acknowledged records; acknowledging again {outage:.2} s later",
            self.killed.acked
        )
    }

    fn reading(&self) -> String {
        let rate = self.verdict.records as f64 / self.reading.as_secs_f64().max(0.001);
        format!(
            "{} records at {} records/s, each compared with what was sent",
            self.verdict.records,
            short(rate)
        )
    }
}

fn meaning(label: &str) -> &'static str {
    match label {
        "device" | "quorum-device" => "(each ack waited for the device: survives SIGKILL and power loss)",
        "page-cache" => "(each ack waited for the kernel: survives SIGKILL, not power loss)",
        "memory" | "quorum-memory" => "(acks do not wait for the disk)",
        _ => "",
    }
}
