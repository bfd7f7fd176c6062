//! Where reading begins and ends: kcat's `-o` forms, resolved to offsets.

use std::collections::BTreeMap;

use crate::cli::exit::Failure;
use crate::client::admin::{EARLIEST, LATEST};
use crate::client::cluster::Cluster;
use crate::client::error::ClientError;

/// One `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Beginning,
    End,
    At(i64),
    /// This many records before the end.
    Last(i64),
    /// This many records behind the beginning.
    AfterBeginning(i64),
    /// The first record at or after this time, in milliseconds since 1970.
    Time(i64),
    /// Not where reading begins: it ends before the first record at or after this time.
    UntilTime(i64),
}

const FORMS: &str =
    "beginning, end, N, -N (the last N), +N (behind the beginning), s@MS (from a time), e@MS (until a time)";

impl From {
    pub fn parse(text: &str) -> Result<From, String> {
        let bad = |_| format!("`{text}` is no offset: {FORMS}");
        Ok(match text {
            "beginning" | "start" | "earliest" => From::Beginning,
            "end" | "latest" => From::End,
            _ => {
                if let Some(ms) = text.strip_prefix("s@") {
                    From::Time(ms.parse().map_err(bad)?)
                } else if let Some(ms) = text.strip_prefix("e@") {
                    From::UntilTime(ms.parse().map_err(bad)?)
                } else if let Some(count) = text.strip_prefix('-') {
                    From::Last(count.parse().map_err(bad)?)
                } else if let Some(count) = text.strip_prefix('+') {
                    From::AfterBeginning(count.parse().map_err(bad)?)
                } else {
                    From::At(text.parse().map_err(bad)?)
                }
            }
        })
    }
}

/// First offset of each partition, and the offset at which reading ends where one was asked for.
pub struct Range {
    pub from: BTreeMap<i32, i64>,
    pub until: BTreeMap<i32, i64>,
}

/// Asks the broker what the forms mean for these partitions.
pub fn resolve(
    cluster: &mut Cluster,
    topic: &str,
    partitions: &[i32],
    forms: &[From],
) -> Result<Range, Failure> {
    let begins: Vec<From> = forms.iter().copied().filter(|f| !matches!(f, From::UntilTime(_))).collect();
    let begin = match begins.as_slice() {
        [] => From::Beginning,
        [one] => *one,
        _ => {
            return Err(Failure::usage(
                "reading can begin at one place only",
                &["one -o, and at most one -o e@MS"],
            ));
        }
    };
    let starts = offsets_at(cluster, topic, partitions, EARLIEST)?;
    let ends = offsets_at(cluster, topic, partitions, LATEST)?;
    let timed = match begin {
        From::Time(ms) => or_end(offsets_at(cluster, topic, partitions, ms)?, &ends),
        _ => BTreeMap::new(),
    };
    let first = |p: &i32| match begin {
        From::Beginning | From::UntilTime(_) => starts[p],
        From::End => ends[p],
        From::At(offset) => offset,
        From::Last(count) => (ends[p].saturating_sub(count)).max(starts[p]),
        From::AfterBeginning(count) => starts[p].saturating_add(count),
        From::Time(_) => timed[p],
    };
    let from = partitions.iter().map(|p| (*p, first(p))).collect();
    let until = forms.iter().find_map(|f| if let From::UntilTime(ms) = f { Some(*ms) } else { None });
    let until = match until {
        Some(ms) => or_end(offsets_at(cluster, topic, partitions, ms)?, &ends),
        None => BTreeMap::new(),
    };
    Ok(Range { from, until })
}

fn offsets_at(
    cluster: &mut Cluster,
    topic: &str,
    partitions: &[i32],
    timestamp: i64,
) -> Result<BTreeMap<i32, i64>, ClientError> {
    let asked: Vec<(i32, i64)> = partitions.iter().map(|p| (*p, timestamp)).collect();
    let found = cluster.list_offsets(topic, &asked)?;
    Ok(found.into_iter().map(|(p, f)| (p, f.offset)).collect())
}

/// No record at or after a time: -1 becomes the end.
fn or_end(found: BTreeMap<i32, i64>, ends: &BTreeMap<i32, i64>) -> BTreeMap<i32, i64> {
    found.into_iter().map(|(p, offset)| (p, if offset < 0 { ends[&p] } else { offset })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read() {
        assert_eq!(From::parse("beginning"), Ok(From::Beginning));
        assert_eq!(From::parse("end"), Ok(From::End));
        assert_eq!(From::parse("17"), Ok(From::At(17)));
        assert_eq!(From::parse("-3"), Ok(From::Last(3)));
        assert_eq!(From::parse("+3"), Ok(From::AfterBeginning(3)));
        assert_eq!(From::parse("s@1700"), Ok(From::Time(1700)));
        assert_eq!(From::parse("e@1700"), Ok(From::UntilTime(1700)));
        assert!(From::parse("someday").is_err());
    }
}
