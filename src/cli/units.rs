//! Counts, sizes and durations as people write them: `20k`, `1KiB`, `1MB`, `500us`, `5ms`, `20s`, `2h`.

use std::time::Duration;

/// A count: a number with an optional `k`, `M` or `G` (powers of 1000).
pub fn count(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    scaled(number, &[("", 1.0), ("k", 1e3), ("K", 1e3), ("M", 1e6), ("G", 1e9)], unit)
        .map(|n| n as u64)
        .ok_or_else(|| format!("`{text}` is no count: 20000, 20k, 1.5M"))
}

/// Bytes: a bare number, or one with `KiB`, `MiB`, `GiB` (1024) or `kB`, `KB`, `MB`, `GB` (1000).
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let units = [
        ("", 1.0),
        ("B", 1.0),
        ("kB", 1e3),
        ("KB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("KiB", 1024.0),
        ("k", 1024.0),
        ("K", 1024.0),
        ("MiB", 1_048_576.0),
        ("M", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("G", 1_073_741_824.0),
    ];
    scaled(number, &units, unit)
        .map(|n| n as u64)
        .ok_or_else(|| format!("`{text}` is no size: 1024, 1KiB, 4MB"))
}

/// A duration; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let units = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("ms", 1e-3),
        ("", 1.0),
        ("s", 1.0),
        ("m", 60.0),
        ("min", 60.0),
        ("h", 3600.0),
        ("d", 86400.0),
    ];
    let seconds = scaled(number, &units, unit).filter(|s| *s < 1e9);
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("`{text}` is no duration: 500us, 5ms, 20s, 2h"))
}

fn split(text: &str) -> Result<(f64, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse().map_err(|_| format!("`{text}` does not begin with a number"))?;
    Ok((number, text[end..].trim()))
}

fn scaled(number: f64, units: &[(&str, f64)], unit: &str) -> Option<f64> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| number * factor)
}

/// Three significant digits with a thousands suffix: `1.23 M`.
pub fn short(value: f64) -> String {
    let (value, suffix) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, " G"),
        v if v >= 1e6 => (value / 1e6, " M"),
        v if v >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    format!("{}{suffix}", three_digits(value))
}

/// Nanoseconds as `12.3 us`, `1.05 ms`, `2.00 s`.
pub fn short_ns(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => (ns as f64, "ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    format!("{} {unit}", three_digits(value))
}

fn three_digits(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || value == 0.0 || (v >= 1.0 && value.fract() == 0.0) => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_written() {
        assert_eq!(count("20k"), Ok(20_000));
        assert_eq!(count("1.5M"), Ok(1_500_000));
        assert_eq!(bytes("1KiB"), Ok(1024));
        assert_eq!(bytes("1MB"), Ok(1_000_000));
        assert_eq!(duration("500us"), Ok(Duration::from_micros(500)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
        assert!(duration("3 parsecs").is_err() && bytes("").is_err() && count("1x").is_err());
        assert_eq!(short(1_234_567.0), "1.23 M");
        assert_eq!(short(42.0), "42");
        assert_eq!(short_ns(1_050_000), "1.05 ms");
        assert_eq!(short_ns(12_345), "12.3 us");
    }
}
