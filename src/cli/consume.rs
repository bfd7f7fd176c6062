//! `corelog consume`: prints records, kcat's way.

use std::ops::ControlFlow;

use clap::Args;

use crate::cli::consume_from::{self, From, Range};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::interrupt;
use crate::cli::output::{say, write_stdout};
use crate::cli::record_format::{RecordFormat, envelope, unescape};
use crate::cli::target::Target;
use crate::client::consumer::{Consumer, Fetched};
use crate::client::error::ClientError;
use crate::wire::error::codes;

/// Text is handed to stdout in pieces of about this size.
const OUTPUT_BYTES: usize = 64 * 1024;

#[derive(Args, Debug)]
pub struct ConsumeArgs {
    #[command(flatten)]
    target: Target,
    /// Topic to read
    #[arg(short, long, value_name = "NAME")]
    topic: String,
    /// Partitions to read, 0,1,...; all by default
    #[arg(short, long, value_delimiter = ',', value_name = "N,...")]
    partition: Vec<i32>,
    /// Where to begin: beginning, end, N, -N, +N, s@MS; and where to end: e@MS
    #[arg(short, long, allow_hyphen_values = true, value_parser = From::parse, value_name = "OFFSET")]
    offset: Vec<From>,
    /// End when the last record was read
    #[arg(short = 'e', long)]
    exit: bool,
    /// End after this many records
    #[arg(short, long, visible_short_alias = 'n', value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    count: Option<u64>,
    /// Output format: %s %S %R %k %K %T %h %t %p %o %v %% \n \t \xNN
    #[arg(short, long, conflicts_with = "json", value_name = "FORMAT")]
    format: Option<String>,
    /// One JSON object per record, as kcat writes it
    #[arg(short = 'J', long)]
    json: bool,
    /// Print the key and this delimiter before each value
    #[arg(short = 'K', long, value_name = "DELIM")]
    key_delimiter: Option<String>,
    /// Printed behind each value
    #[arg(short = 'D', long, default_value = "\\n", value_name = "DELIM")]
    delimiter: String,
    /// Print a null key or value as NULL instead of nothing
    #[arg(short = 'Z', long)]
    null: bool,
}

/// Writes records as they come.
struct Printer<'a> {
    args: &'a ConsumeArgs,
    format: RecordFormat,
    out: Vec<u8>,
    failure: Option<Failure>,
}

pub fn run(args: &ConsumeArgs) -> Outcome {
    interrupt::watch();
    let format = format(args)?;
    let mut settings = args.target.settings()?;
    settings.auto_create = false;
    let mut cluster = crate::client::cluster::Cluster::new(settings);
    let partitions = partitions(&mut cluster, args)?;
    let range = consume_from::resolve(&mut cluster, &args.topic, &partitions, &args.offset)?;
    let mut consumer = Consumer::new(cluster, &args.topic, &range.from);
    let mut printer = Printer { args, format, out: Vec::new(), failure: None };
    let mut left = args.count.unwrap_or(u64::MAX);
    loop {
        finish_what_is_read(&mut consumer, &range, args.exit);
        if left == 0 || consumer.is_done() {
            break;
        }
        if interrupt::asked() {
            printer.flush()?;
            return Err(interrupt::failure("interrupted"));
        }
        consumer.poll(&mut |record| {
            if range.until.get(&record.partition).is_some_and(|until| record.offset >= *until) {
                return ControlFlow::Continue(());
            }
            left -= 1;
            printer.take(&record, left)
        })?;
        printer.flush()?;
        if let Some(failure) = printer.failure.take() {
            return Err(failure);
        }
    }
    if args.exit && args.count.is_some_and(|count| left == count) {
        say("the topic has no such records");
    }
    printer.flush()
}

fn partitions(
    cluster: &mut crate::client::cluster::Cluster,
    args: &ConsumeArgs,
) -> Result<Vec<i32>, Failure> {
    let all: Vec<i32> = cluster.topic(&args.topic)?.partitions.iter().map(|p| p.index).collect();
    if args.partition.is_empty() {
        return Ok(all);
    }
    match args.partition.iter().find(|p| !all.contains(p)) {
        None => Ok(args.partition.clone()),
        Some(missing) => {
            let what = format!("partition {missing} of topic {}", args.topic);
            let has = format!("the topic has partitions 0 to {}", all.len().saturating_sub(1));
            Err(ClientError::refused(codes::UNKNOWN_TOPIC_OR_PARTITION, what, Some(&has)).into())
        }
    }
}

/// Marks partitions whose end was reached, where an end was asked for.
fn finish_what_is_read(consumer: &mut Consumer, range: &Range, at_end: bool) {
    let reached = consumer.positions().iter().filter(|(partition, position)| {
        let known_end = position.high_watermark >= 0;
        let at_end = at_end && known_end && position.next >= position.high_watermark;
        at_end || range.until.get(partition).is_some_and(|until| position.next >= *until)
    });
    let reached: Vec<i32> = reached.map(|(partition, _)| *partition).collect();
    for partition in reached {
        consumer.finish(partition);
    }
}

fn format(args: &ConsumeArgs) -> Result<RecordFormat, Failure> {
    let bad = |e: String| Failure::usage(e, &["corelog consume --help"]);
    if let Some(format) = &args.format {
        return RecordFormat::parse(format).map_err(bad);
    }
    let key_delimiter = args.key_delimiter.as_deref().map(unescape).transpose().map_err(bad)?;
    let delimiter = unescape(&args.delimiter).map_err(bad)?;
    Ok(RecordFormat::plain(key_delimiter.as_deref(), &delimiter))
}

impl Printer<'_> {
    fn take(&mut self, record: &Fetched<'_>, left: u64) -> ControlFlow<()> {
        if self.args.json {
            self.out.extend_from_slice(envelope(&self.args.topic, record).to_string().as_bytes());
            self.out.push(b'\n');
        } else {
            let null: &[u8] = if self.args.null { b"NULL" } else { b"" };
            self.format.write(&self.args.topic, record, null, &mut self.out);
        }
        if self.out.len() >= OUTPUT_BYTES
            && let Err(failure) = self.flush()
        {
            self.failure = Some(failure);
            return ControlFlow::Break(());
        }
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn flush(&mut self) -> Outcome {
        if self.out.is_empty() {
            return Ok(());
        }
        let written = write_stdout(&self.out);
        self.out.clear();
        written
    }
}
