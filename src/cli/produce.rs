//! `corelog produce`: records from stdin or files, kcat's way. A thread reads, so that a batch leaves when the input pauses.

use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::json;

use crate::cli::exit::{Failure, Outcome};
use crate::cli::interrupt;
use crate::cli::output::{Format, Progress};
use crate::cli::record_format::unescape;
use crate::cli::target::Target;
use crate::cli::units::short;
use crate::client::cluster::Cluster;
use crate::client::producer::Producer;
use crate::client::settings::Acks;
use crate::wire::batch::build::NewRecord;
use crate::wire::codec::Codec;

/// Largest record that is read; brokers refuse more than about 1 MiB unless told otherwise.
const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Records travel from the reader in chunks of about this size, two of them waiting.
const CHUNK_BYTES: usize = 64 * 1024;
const CHUNKS_WAITING: usize = 2;

#[derive(Args, Debug)]
pub struct ProduceArgs {
    #[command(flatten)]
    target: Target,
    /// Topic to write to; created if the broker allows it
    #[arg(short, long, value_name = "NAME")]
    topic: String,
    /// Partition for every record; else by key, else sticky
    #[arg(short, long, value_name = "N")]
    partition: Option<i32>,
    /// Key of every record
    #[arg(short, long, conflicts_with = "key_delimiter", value_name = "KEY")]
    key: Option<String>,
    /// Splits each record into key and value
    #[arg(short = 'K', long, value_name = "DELIM")]
    key_delimiter: Option<String>,
    /// Splits the input into records
    #[arg(short = 'D', long, default_value = "\\n", value_name = "DELIM")]
    delimiter: String,
    /// A header of every record; may be repeated
    #[arg(short = 'H', long, value_name = "KEY=VALUE")]
    header: Vec<String>,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(short = 'z', long, value_name = "CODEC")]
    compression: Option<String>,
    /// An empty value or key is null
    #[arg(short = 'Z', long)]
    null: bool,
    /// 0, 1 or all
    #[arg(short, long, value_name = "ACKS")]
    acks: Option<String>,
    /// End after this many records
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Summary on stdout at the end: none by default
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Read from files instead of stdin
    files: Vec<PathBuf>,
}

/// How a line becomes a record.
struct Shape {
    key: Option<Vec<u8>>,
    key_delimiter: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    null: bool,
}

type Chunk = io::Result<Vec<Vec<u8>>>;

pub fn run(args: &ProduceArgs) -> Outcome {
    interrupt::watch();
    let shape = shape(args)?;
    let mut settings = args.target.settings()?;
    if let Some(acks) = &args.acks {
        settings.acks = Acks::parse(acks)
            .ok_or_else(|| Failure::usage(format!("acks cannot be {acks}"), &["-a 0", "-a 1", "-a all"]))?;
    }
    if let Some(codec) = &args.compression {
        let bad = || Failure::usage(format!("no codec is called {codec}"), &["-z none|gzip|snappy|lz4|zstd"]);
        settings.compression = Codec::from_name(codec).ok_or_else(bad)?;
    }
    let linger = settings.linger;
    let delimiter = unescape(&args.delimiter).map_err(|e| Failure::usage(e, &["-D '\\n'"]))?;
    if delimiter.is_empty() {
        return Err(Failure::usage("an empty delimiter splits nothing", &["-D '\\n'"]));
    }
    let input = open(&args.files)?;
    let mut producer = Producer::new(Cluster::new(settings), &args.topic, seed())?;
    let (send, receive) = sync_channel(CHUNKS_WAITING);
    std::thread::spawn(move || read_records(input, &delimiter, &send));
    let began = Instant::now();
    let sent = pump(args, &shape, &mut producer, &receive, linger)?;
    producer.flush()?;
    if let Some(format) = args.format {
        let seconds = began.elapsed().as_secs_f64();
        format.print(
            || format!("{} records, {} bytes\n", sent.records, sent.bytes),
            || json!({ "topic": args.topic, "records": sent.records, "bytes": sent.bytes, "seconds": seconds }),
        )?;
    }
    if interrupt::asked() {
        Err(interrupt::failure(&format!("interrupted after {} records, all acknowledged", sent.records)))
    } else {
        Ok(())
    }
}

#[derive(Default)]
struct Sent {
    records: u64,
    bytes: u64,
}

fn pump(
    args: &ProduceArgs,
    shape: &Shape,
    producer: &mut Producer,
    input: &Receiver<Chunk>,
    linger: Duration,
) -> Result<Sent, Failure> {
    let mut sent = Sent::default();
    let mut progress = Progress::new();
    let interactive = io::stdin().is_terminal() && args.files.is_empty();
    let limit = args.count.unwrap_or(u64::MAX);
    while sent.records < limit && !interrupt::asked() {
        // Nothing waits to be sent: look for input, and for Ctrl-C, twenty times a second.
        let patience = if producer.unacked() > 0 { linger } else { Duration::from_millis(50) };
        let chunk = match input.recv_timeout(patience) {
            Ok(chunk) => chunk.map_err(|e| Failure::io("cannot read the input", &e))?,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                producer.flush()?;
                producer.take_acks().for_each(drop);
                continue;
            }
        };
        let now_ms = now_ms();
        for line in chunk.iter().take(usize::try_from(limit - sent.records).unwrap_or(usize::MAX)) {
            push(producer, args.partition, shape, line, now_ms)?;
            sent.records += 1;
            sent.bytes += line.len() as u64;
        }
        producer.take_acks().for_each(drop);
        if !interactive {
            progress
                .show(|| format!("{} records, {}B", short(sent.records as f64), short(sent.bytes as f64)));
        }
    }
    Ok(sent)
}

fn push(producer: &mut Producer, partition: Option<i32>, shape: &Shape, line: &[u8], now_ms: i64) -> Outcome {
    let (key, value) = shape.split(line);
    let headers: Vec<(&[u8], Option<&[u8]>)> =
        shape.headers.iter().map(|(k, v)| (k.as_slice(), Some(v.as_slice()))).collect();
    producer.push(partition, &NewRecord { timestamp: now_ms, key, value, headers: &headers }, 0)?;
    Ok(())
}

impl Shape {
    fn split<'a>(&'a self, line: &'a [u8]) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
        let (key, value) = match &self.key_delimiter {
            Some(delimiter) => match find(line, delimiter) {
                Some(at) => (Some(&line[..at]), &line[at + delimiter.len()..]),
                None => (None, line),
            },
            None => (self.key.as_deref(), line),
        };
        let present = |bytes: &&[u8]| !self.null || !bytes.is_empty();
        (key.filter(present), Some(value).filter(present))
    }
}

fn shape(args: &ProduceArgs) -> Result<Shape, Failure> {
    let split_header = |header: &String| match header.split_once('=') {
        Some((key, value)) => Ok((key.as_bytes().to_vec(), value.as_bytes().to_vec())),
        None => Err(Failure::usage(format!("-H {header}: KEY=VALUE is needed"), &["-H source=shop"])),
    };
    let key_delimiter = args.key_delimiter.as_deref().map(unescape).transpose();
    let key_delimiter = key_delimiter.map_err(|e| Failure::usage(e, &["-K :"]))?;
    if key_delimiter.as_ref().is_some_and(Vec::is_empty) {
        return Err(Failure::usage("an empty delimiter splits nothing", &["-K :"]));
    }
    Ok(Shape {
        key: args.key.as_ref().map(|k| k.as_bytes().to_vec()),
        key_delimiter,
        headers: args.header.iter().map(split_header).collect::<Result<_, _>>()?,
        null: args.null,
    })
}

fn open(files: &[PathBuf]) -> Result<Box<dyn Read + Send>, Failure> {
    let mut input: Box<dyn Read + Send> = Box::new(io::empty());
    if files.is_empty() {
        return Ok(Box::new(io::stdin()));
    }
    for path in files {
        let file = std::fs::File::open(path)
            .map_err(|e| Failure::io(&format!("cannot open {}", path.display()), &e))?;
        input = Box::new(input.chain(file));
    }
    Ok(input)
}

/// Splits the input and sends chunks, until it ends or nobody listens. A chunk leaves when it is full or the input pauses.
fn read_records(input: Box<dyn Read + Send>, delimiter: &[u8], send: &SyncSender<Chunk>) {
    let mut input = BufReader::with_capacity(CHUNK_BYTES, input);
    let mut chunk = Vec::new();
    let mut bytes = 0;
    loop {
        let record = match next_record(&mut input, delimiter) {
            Ok(Some(record)) => record,
            Ok(None) => break,
            Err(error) => {
                let _ = send.send(Ok(chunk));
                let _ = send.send(Err(error));
                return;
            }
        };
        bytes += record.len();
        chunk.push(record);
        if (bytes >= CHUNK_BYTES || input.buffer().is_empty())
            && send.send(Ok(std::mem::take(&mut chunk))).is_err()
        {
            return;
        }
        if chunk.is_empty() {
            bytes = 0;
        }
    }
    let _ = send.send(Ok(chunk));
}

/// The bytes up to the next delimiter, or the rest of the input.
fn next_record(input: &mut impl BufRead, delimiter: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let last = delimiter[delimiter.len() - 1];
    let mut record = Vec::new();
    loop {
        let room = (RECORD_BYTES_MAX + delimiter.len() - record.len()) as u64;
        let read = input.by_ref().take(room).read_until(last, &mut record)?;
        if record.ends_with(delimiter) {
            record.truncate(record.len() - delimiter.len());
            return Ok(Some(record));
        }
        if record.len() >= RECORD_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a record is longer than 16 MiB: is the delimiter right (-D)?",
            ));
        }
        if read == 0 {
            return Ok((!record.is_empty()).then_some(record));
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// The wall clock in milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// Something that differs between two runs.
fn seed() -> u64 {
    u64::from(std::process::id()) << 32 ^ now_ms() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_split() {
        let mut input = io::Cursor::new(b"a--b-c----d".to_vec());
        let mut records = Vec::new();
        while let Some(record) = next_record(&mut input, b"--").unwrap() {
            records.push(String::from_utf8(record).unwrap());
        }
        assert_eq!(records, ["a", "b-c", "", "d"]);
        let shape = Shape { key: None, key_delimiter: Some(b":".to_vec()), headers: Vec::new(), null: true };
        assert_eq!(shape.split(b"k:v:w"), (Some(&b"k"[..]), Some(&b"v:w"[..])));
        assert_eq!(shape.split(b"k:"), (Some(&b"k"[..]), None));
        assert_eq!(shape.split(b"v"), (None, Some(&b"v"[..])));
    }
}
