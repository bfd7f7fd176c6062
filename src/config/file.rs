//! The two forms of a configuration file, as text to key-value pairs in the order of the file.

/// TOML: dotted keys or tables, scalar values, lists as arrays or as Kafka's comma-separated strings.
///
/// Kafka has keys that are prefixes of other keys (`log.dir` and `log.dir.failure.timeout.ms`), which TOML's own dotted keys cannot
/// express: `log.dir` would be a value and a table at once. So keys at the start of a line are quoted before parsing, which
/// makes each of them one flat name.
pub fn toml(text: &str) -> Result<Vec<(String, String)>, String> {
    let quoted: String = text.lines().map(|line| quote_key(line) + "\n").collect();
    let table: toml::Table = toml::from_str(&quoted).map_err(|error| error.to_string())?;
    let mut pairs = Vec::new();
    flatten(String::new(), &table, &mut pairs)?;
    Ok(pairs)
}

fn quote_key(line: &str) -> String {
    let Some((key, rest)) = line.split_once('=') else { return line.to_string() };
    let bare = key.trim();
    let is_dotted_key = bare.contains('.')
        && bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if is_dotted_key { format!("\"{bare}\" ={rest}") } else { line.to_string() }
}

fn flatten(prefix: String, table: &toml::Table, pairs: &mut Vec<(String, String)>) -> Result<(), String> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(key, inner, pairs)?,
            toml::Value::Array(members) => {
                let members: Result<Vec<String>, String> =
                    members.iter().map(|member| scalar(&key, member)).collect();
                pairs.push((key, members?.join(",")));
            }
            value => pairs.push((key.clone(), scalar(&key, value)?)),
        }
    }
    Ok(())
}

fn scalar(key: &str, value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(flag) => Ok(flag.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
            Err(format!("{key}: a text, a number, true, false or a list of these is expected"))
        }
    }
}

/// Java's properties: `key=value`, `key: value` or `key value`, comments with `#` or `!`, lines continued by a backslash.
pub fn properties(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let mut line = line.trim_start().to_string();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        while ends_in_continuation(&line) {
            line.pop();
            let Some((_, next)) = lines.next() else { break };
            line.push_str(next.trim_start());
        }
        let (key, value) = split_property(&line);
        let read = |text: &str| unescape(text).ok_or(format!("line {}: a broken \\u escape", at + 1));
        pairs.push((read(key)?, read(value)?));
    }
    Ok(pairs)
}

fn ends_in_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1
}

fn split_property(line: &str) -> (&str, &str) {
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '=' | ':' => return (&line[..at], line[at + 1..].trim_start()),
            c if c.is_whitespace() => {
                let rest = line[at..].trim_start();
                let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
                return (&line[..at], value.trim_start());
            }
            _ => {}
        }
    }
    (line, "")
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('t') => plain.push('\t'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => {
                let hex: String = chars.by_ref().take(4).collect();
                plain.push(char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?);
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    Some(plain)
}
