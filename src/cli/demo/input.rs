//! What the demo produces: the lines of a file, or order events that look like a shop's.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use crate::cli::exit::Failure;
use crate::loadgen::ledger::Source;

/// More of a file than this is left out: the demo keeps its input in memory to compare with.
const FILE_BYTES_MAX: usize = 256 * 1024 * 1024;

pub enum Input {
    /// Endless, each event a function of its producer and number.
    Orders,
    /// Dealt out to the producers in turn.
    Lines { lines: Vec<Vec<u8>>, producers: u32, truncated: bool },
}

impl Input {
    pub fn read(file: Option<&Path>, producers: u32) -> Result<Input, Failure> {
        let Some(path) = file else { return Ok(Input::Orders) };
        let cannot = |e: &std::io::Error| Failure::io(&format!("cannot read {}", path.display()), e);
        let mut input = BufReader::new(std::fs::File::open(path).map_err(|e| cannot(&e))?);
        let (mut lines, mut bytes) = (Vec::new(), 0);
        loop {
            let mut line = Vec::new();
            if input.read_until(b'\n', &mut line).map_err(|e| cannot(&e))? == 0
                || bytes + line.len() > FILE_BYTES_MAX
            {
                let truncated = !line.is_empty();
                if lines.is_empty() {
                    return Err(Failure::usage(
                        format!("{} has no lines", path.display()),
                        &["a text file", "corelog demo"],
                    ));
                }
                return Ok(Input::Lines { lines, producers, truncated });
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            bytes += line.len();
            lines.push(line);
        }
    }

    /// Records in all, where that is known beforehand.
    pub fn total(&self) -> Option<u64> {
        match self {
            Input::Orders => None,
            Input::Lines { lines, .. } => Some(lines.len() as u64),
        }
    }
}

impl Source for Input {
    fn record(&self, producer: u32, sequence: u64, key: &mut Vec<u8>, value: &mut Vec<u8>) -> bool {
        match self {
            Input::Orders => order(producer, sequence, key, value),
            Input::Lines { lines, producers, .. } => {
                let at = sequence.saturating_mul(u64::from(*producers)).saturating_add(u64::from(producer));
                let Some(line) = usize::try_from(at).ok().and_then(|at| lines.get(at)) else { return false };
                value.extend_from_slice(line);
            }
        }
        true
    }
}

/// Customers differ in how much they buy: the square of a uniform draw prefers the low numbers.
fn order(producer: u32, sequence: u64, key: &mut Vec<u8>, value: &mut Vec<u8>) {
    const ITEMS: [&str; 8] =
        ["espresso", "filter", "grinder", "kettle", "scale", "beans-250g", "beans-1kg", "mug"];
    let draw = scramble(u64::from(producer) << 40 ^ sequence);
    let uniform = (draw >> 40) as f64 / (1u64 << 24) as f64;
    let customer = (uniform * uniform * 10_000.0) as u32;
    let item = ITEMS[(draw & 7) as usize];
    let quantity = (draw >> 3 & 3) + 1;
    let cents = (draw >> 8 & 0x3fff) + 99;
    let shipped = draw >> 30 & 1 == 1;
    let _ = write!(key, "customer-{customer:04}");
    let _ = write!(
        value,
        "{{\"order\":\"{producer}-{sequence:09}\",\"customer\":{customer},\"item\":\"{item}\",\"quantity\":{quantity},\"cents\":{cents},\"express\":{shipped}}}"
    );
}

/// splitmix64: each number to another, without a pattern.
fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
