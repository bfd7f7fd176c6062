//! One run as text and as JSON. Base units in JSON, three significant digits in text.

use serde_json::{Value, json};

use super::engine::Seen;
use super::run::Load;
use crate::client::error::code_text;

/// What one run measured.
pub struct Report {
    pub load: Load,
    pub durability: &'static str,
    pub seconds: f64,
    pub seen: Seen,
    /// CPU seconds of this process in the window.
    pub generator_cpu_s: Option<f64>,
    /// CPU seconds of the server in the window, where its pid was given.
    pub server_cpu_s: Option<f64>,
    /// Share of all CPU time that the host took away in the window.
    pub steal: f64,
}

/// Failed requests that still leave a result.
const ERRORS_MAX: f64 = 0.001;

/// CPU that the generator may use of its workers' time before it measures itself.
const GENERATOR_BUSY_MAX: f64 = 0.9;

const STEAL_MAX: f64 = 0.01;

impl Report {
    pub fn requests(&self) -> u64 {
        self.seen.service.len()
    }

    pub fn requests_per_s(&self) -> f64 {
        self.requests() as f64 / self.seconds
    }

    /// When not to believe it. Those that begin with INVALID end the command with exit code 6.
    pub fn marks(&self) -> Vec<String> {
        let mut marks = Vec::new();
        if self.requests() == 0 || self.seen.errors as f64 > ERRORS_MAX * self.requests() as f64 {
            let first = if self.seen.errors > 0 {
                code_text(self.seen.first_error)
            } else {
                "no answers".to_string()
            };
            marks.push(format!(
                "INVALID(ERRORS: {} of {}, first {first})",
                self.seen.errors,
                self.requests()
            ));
        }
        if self.generator_busy().is_some_and(|busy| busy > GENERATOR_BUSY_MAX) {
            marks.push("INVALID(GEN_CPU: raise --workers)".to_string());
        }
        if self.steal > STEAL_MAX {
            marks.push(format!(
                "INVALID(NOISE: {:.1} % of the CPU was taken by the host)",
                self.steal * 100.0
            ));
        }
        marks.push("CLOSED_LOOP".to_string());
        if cfg!(debug_assertions) {
            marks.push("DEBUG_BUILD".to_string());
        }
        marks
    }

    pub fn is_invalid(&self) -> bool {
        self.marks().iter().any(|m| m.starts_with("INVALID"))
    }

    fn generator_busy(&self) -> Option<f64> {
        self.generator_cpu_s.map(|cpu| cpu / self.seconds / self.load.workers as f64)
    }

    fn us_per_request(&self, cpu_s: Option<f64>) -> Option<f64> {
        cpu_s.map(|cpu| cpu * 1e6 / self.requests().max(1) as f64)
    }

    pub fn json(&self) -> Value {
        let quantile = |q: f64| self.seen.service.value_at_quantile(q);
        json!({
            "schema_version": 1,
            "marks": self.marks(),
            "mode": self.load.mode.name(),
            "durability": self.durability,
            "address": self.load.address,
            "topic": self.load.topic,
            "connections": self.load.connections,
            "in_flight": self.load.in_flight,
            "record_bytes": self.load.record_bytes,
            "batch_records": self.load.batch_records,
            "partitions": self.load.partitions,
            "spread": self.load.spread,
            "acks": self.load.acks.text(),
            "workers": self.load.workers,
            "seconds": self.seconds,
            "requests": self.requests(),
            "errors": self.seen.errors,
            "requests_per_s": self.requests_per_s(),
            "records_per_s": self.seen.records as f64 / self.seconds,
            "bytes_per_s": self.seen.bytes as f64 / self.seconds,
            "service_ns": {
                "mean": self.seen.service.mean(), "p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99),
                "p99_9": quantile(0.999), "p99_99": quantile(0.9999), "max": self.seen.service.max(),
            },
            "generator": { "cpu_us_per_request": self.us_per_request(self.generator_cpu_s), "busy": self.generator_busy() },
            "server": {
                "cpu_us_per_request": self.us_per_request(self.server_cpu_s),
                "busy_cores": self.server_cpu_s.map(|cpu| cpu / self.seconds),
            },
            "steal": self.steal,
        })
    }

    pub fn text(&self) -> String {
        let us = |q: f64| format!("{:.1}", self.seen.service.value_at_quantile(q) as f64 / 1e3);
        let cpu = |cpu_s: Option<f64>| {
            self.us_per_request(cpu_s).map_or("not told".to_string(), |us| {
                format!("{us:.2} us/request, {:.0} % of a core", cpu_s.unwrap_or(0.0) / self.seconds * 100.0)
            })
        };
        let load = &self.load;
        let rows = [
            ("marks", self.marks().join(" · ")),
            (
                "load",
                format!(
                    "{} · {} B x {} per request · {} connections x {} in flight · {} partitions · acks={} · {} workers",
                    load.mode.name(),
                    load.record_bytes,
                    load.batch_records,
                    load.connections,
                    load.in_flight,
                    load.partitions,
                    load.acks.text(),
                    load.workers
                ),
            ),
            ("durability", self.durability.to_string()),
            (
                "throughput",
                format!(
                    "{:.0} requests/s   {:.0} records/s   {:.1} MB/s   in {:.1} s",
                    self.requests_per_s(),
                    self.seen.records as f64 / self.seconds,
                    self.seen.bytes as f64 / self.seconds / 1e6,
                    self.seconds
                ),
            ),
            (
                "service us",
                format!(
                    "p50 {}   p90 {}   p99 {}   p99.9 {}   max {:.1}",
                    us(0.5),
                    us(0.9),
                    us(0.99),
                    us(0.999),
                    self.seen.service.max() as f64 / 1e3
                ),
            ),
            ("generator", cpu(self.generator_cpu_s)),
            ("server", cpu(self.server_cpu_s)),
        ];
        rows.iter().map(|(name, value)| format!("{name:<12}{value}\n")).collect()
    }
}
