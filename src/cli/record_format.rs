//! kcat's output formats: `-f` with its letters, `-K`, `-D`, and the JSON envelope of `-J`.

use serde_json::{Value, json};

use crate::client::consumer::Fetched;

/// How each record is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFormat {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Value,
    ValueLength,
    ValueLengthBinary,
    Key,
    KeyLength,
    Timestamp,
    Headers,
    Topic,
    Partition,
    Offset,
}

impl RecordFormat {
    /// The format of `-f`.
    pub fn parse(text: &str) -> Result<RecordFormat, String> {
        let text = unescape(text)?;
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut bytes = text.iter();
        while let Some(byte) = bytes.next() {
            if *byte != b'%' {
                literal.push(*byte);
                continue;
            }
            let piece = match bytes.next() {
                Some(b's' | b'v') => Piece::Value,
                Some(b'S') => Piece::ValueLength,
                Some(b'R') => Piece::ValueLengthBinary,
                Some(b'k') => Piece::Key,
                Some(b'K') => Piece::KeyLength,
                Some(b'T') => Piece::Timestamp,
                Some(b'h') => Piece::Headers,
                Some(b't') => Piece::Topic,
                Some(b'p') => Piece::Partition,
                Some(b'o') => Piece::Offset,
                Some(b'%') => {
                    literal.push(b'%');
                    continue;
                }
                other => {
                    let letter = other.map_or("nothing".to_string(), |b| format!("`{}`", *b as char));
                    return Err(format!("% is followed by {letter}: known are s S R k K T h t p o v %"));
                }
            };
            flush(&mut pieces, &mut literal);
            pieces.push(piece);
        }
        flush(&mut pieces, &mut literal);
        Ok(RecordFormat { pieces })
    }

    /// Value and delimiter, with the key in front if `key_delimiter` is given.
    pub fn plain(key_delimiter: Option<&[u8]>, delimiter: &[u8]) -> RecordFormat {
        let mut pieces = Vec::new();
        if let Some(delimiter) = key_delimiter {
            pieces.extend([Piece::Key, Piece::Text(delimiter.to_vec())]);
        }
        pieces.extend([Piece::Value, Piece::Text(delimiter.to_vec())]);
        RecordFormat { pieces }
    }

    /// Appends one record. `null` stands for a key or value that is null.
    pub fn write(&self, topic: &str, record: &Fetched<'_>, null: &[u8], out: &mut Vec<u8>) {
        let length = |bytes: Option<&[u8]>| bytes.map_or(-1, |b| b.len() as i64);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Value => out.extend_from_slice(record.value.unwrap_or(null)),
                Piece::Key => out.extend_from_slice(record.key.unwrap_or(null)),
                Piece::ValueLength => out.extend_from_slice(length(record.value).to_string().as_bytes()),
                Piece::KeyLength => out.extend_from_slice(length(record.key).to_string().as_bytes()),
                Piece::ValueLengthBinary => {
                    out.extend_from_slice(&(length(record.value) as i32).to_be_bytes())
                }
                Piece::Timestamp => out.extend_from_slice(record.timestamp.to_string().as_bytes()),
                Piece::Headers => write_headers(record, null, out),
                Piece::Topic => out.extend_from_slice(topic.as_bytes()),
                Piece::Partition => out.extend_from_slice(record.partition.to_string().as_bytes()),
                Piece::Offset => out.extend_from_slice(record.offset.to_string().as_bytes()),
            }
        }
    }
}

fn flush(pieces: &mut Vec<Piece>, literal: &mut Vec<u8>) {
    if !literal.is_empty() {
        pieces.push(Piece::Text(std::mem::take(literal)));
    }
}

/// `key=value,key=value`
fn write_headers(record: &Fetched<'_>, null: &[u8], out: &mut Vec<u8>) {
    for (i, (key, value)) in record.headers.clone().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(key);
        out.push(b'=');
        out.extend_from_slice(value.unwrap_or(null));
    }
}

/// kcat's `-J`: headers as one flat list of keys and values; bytes that are no UTF-8 are replaced.
pub fn envelope(topic: &str, record: &Fetched<'_>) -> Value {
    let text = |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8_lossy(b).into_owned());
    let headers: Vec<Option<String>> =
        record.headers.clone().flat_map(|(key, value)| [text(Some(key)), text(value)]).collect();
    let mut envelope = json!({
        "topic": topic,
        "partition": record.partition,
        "offset": record.offset,
        "tstype": if record.timestamp < 0 { "unknown" } else { "create" },
        "ts": record.timestamp,
        "key": text(record.key),
        "payload": text(record.value),
    });
    if !headers.is_empty() {
        envelope["headers"] = json!(headers);
    }
    envelope
}

/// Takes `\n \t \r \0 \\ \xNN` for the bytes they name.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'r') => out.push(b'\r'),
            Some(b'0') => out.push(0),
            Some(b'\\') => out.push(b'\\'),
            Some(b'x') => {
                let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                let value = u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2);
                out.push(value.ok_or_else(|| format!("\\x{digits}: two hexadecimal digits are needed"))?);
            }
            Some(other) => out.extend([b'\\', other]),
            None => out.push(b'\\'),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::batch::records::Headers;

    fn check(format: &str, expected: &[u8]) {
        let record = Fetched {
            partition: 3,
            offset: 42,
            timestamp: 1_700_000_000_000,
            key: Some(b"k"),
            value: None,
            headers: Headers::default(),
        };
        let mut out = Vec::new();
        RecordFormat::parse(format).unwrap().write("orders", &record, b"NULL", &mut out);
        assert_eq!(out, expected, "{format}: {}", String::from_utf8_lossy(&out));
    }

    #[test]
    fn kcats_letters() {
        check("%t[%p]@%o: %k=%s\\n", b"orders[3]@42: k=NULL\n");
        check("%K %S %T%%", b"1 -1 1700000000000%");
        check("%R\\x41", b"\xff\xff\xff\xffA");
        assert!(RecordFormat::parse("%q").is_err());
        assert!(RecordFormat::parse("\\xz").is_err());
    }
}
