//! What one option is, and the two ways in which its value is read: as a client writes it (Kafka's own rules and messages) and
//! as a person writes it (units allowed).

/// Kafka's type of a value; the numbers are those of DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
    Class = 8,
    Password = 9,
}

impl Kind {
    /// The number of this type in DescribeConfigs.
    pub fn id(self) -> i8 {
        self as i8
    }

    /// Kafka's name of it, as its error messages spell it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "BOOLEAN",
            Kind::String => "STRING",
            Kind::Int => "INT",
            Kind::Short => "SHORT",
            Kind::Long => "LONG",
            Kind::Double => "DOUBLE",
            Kind::List => "LIST",
            Kind::Class => "CLASS",
            Kind::Password => "PASSWORD",
        }
    }

    /// Values of this type never leave the broker.
    pub fn is_sensitive(self) -> bool {
        self == Kind::Password
    }

    fn is_integer(self) -> bool {
        matches!(self, Kind::Int | Kind::Short | Kind::Long)
    }
}

/// Which values of its type an option takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// A fraction of one.
    Ratio,
    /// 1 to 9, or -1 for the codec's own default.
    GzipLevel,
    OneOf(&'static [&'static str]),
    /// A list with members of these.
    SomeOf(&'static [&'static str]),
    /// `*`, or `partition:broker` pairs.
    Replicas,
}

/// The declaration of one option. Help, DescribeConfigs, validation and `config print` all come from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Opt {
    pub key: &'static str,
    pub kind: Kind,
    /// None: no value unless one is set.
    pub default: Option<&'static str>,
    pub allowed: Allowed,
    /// May change while the broker runs, through IncrementalAlterConfigs.
    pub dynamic: bool,
    /// False: accepted, kept and returned, but nothing in this version obeys it.
    pub effect: bool,
    pub doc: &'static str,
}

/// Why a value was not taken: Kafka's wording, without the part that names value and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue {
    pub key: &'static str,
    /// The value as Kafka prints it in this message.
    pub value: String,
    pub why: String,
}

impl std::fmt::Display for BadValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Invalid value {} for configuration {}: {}", self.value, self.key, self.why)
    }
}

impl Opt {
    /// Reads a value as Kafka reads one from a client: blanks around it are dropped, numbers are plain. Returns its canonical text.
    pub fn parse(&self, value: &str) -> Result<String, BadValue> {
        let text = value.trim();
        let not = |what: &str| self.bad(value, what.to_string());
        let canonical = match self.kind {
            Kind::Boolean if text.eq_ignore_ascii_case("true") => "true".to_string(),
            Kind::Boolean if text.eq_ignore_ascii_case("false") => "false".to_string(),
            Kind::Boolean => return Err(not("Expected value to be either true or false")),
            Kind::Int => text.parse::<i32>().map_err(|_| not("Not a number of type INT"))?.to_string(),
            Kind::Short => text.parse::<i16>().map_err(|_| not("Not a number of type SHORT"))?.to_string(),
            Kind::Long => text.parse::<i64>().map_err(|_| not("Not a number of type LONG"))?.to_string(),
            Kind::Double => {
                let number: f64 = text.parse().map_err(|_| not("Not a number of type DOUBLE"))?;
                format!("{number:?}").replace('e', "E")
            }
            Kind::List => list(text).join(","),
            Kind::String | Kind::Class | Kind::Password => text.to_string(),
        };
        self.check(&canonical)?;
        Ok(canonical)
    }

    /// Reads a value as a person writes it in a file, the environment or a flag: `1GiB`, `20k` and `5ms` besides plain numbers.
    pub fn parse_human(&self, value: &str) -> Result<String, BadValue> {
        match plain_number(self.key, value.trim()) {
            Some(number) if self.kind.is_integer() => {
                let written = value.to_string();
                self.parse(&number.to_string()).map_err(|bad| BadValue { value: written, ..bad })
            }
            _ => self.parse(value),
        }
    }

    /// The allowed values in words, for messages and help.
    pub fn allowed_text(&self) -> String {
        match self.allowed {
            Allowed::Any => match self.kind {
                Kind::Boolean => "true or false".to_string(),
                kind => format!("any {}", kind.name().to_ascii_lowercase()),
            },
            Allowed::AtLeast(least) => {
                format!("{} of at least {least}", self.kind.name().to_ascii_lowercase())
            }
            Allowed::Between(least, most) => format!("{least} to {most}"),
            Allowed::Ratio => "0 to 1".to_string(),
            Allowed::GzipLevel => "1 to 9, or -1".to_string(),
            Allowed::OneOf(names) => names.join(", "),
            Allowed::SomeOf(names) => format!("a list of {}", names.join(", ")),
            Allowed::Replicas => "'*' or [partitionId]:[brokerId],...".to_string(),
        }
    }

    fn check(&self, value: &str) -> Result<(), BadValue> {
        let bad = |why: String| Err(self.bad(value, why));
        match self.allowed {
            Allowed::Any => {}
            Allowed::AtLeast(least) => {
                if number(value) < least {
                    return bad(format!("Value must be at least {least}"));
                }
            }
            Allowed::Between(least, most) => {
                if number(value) < least {
                    return bad(format!("Value must be at least {least}"));
                }
                if number(value) > most {
                    return bad(format!("Value must be no more than {most}"));
                }
            }
            Allowed::Ratio => {
                let ratio: f64 = value.parse().unwrap_or(-1.0);
                if ratio.is_nan() || ratio < 0.0 {
                    return bad("Value must be at least 0".to_string());
                }
                if ratio > 1.0 {
                    return bad("Value must be no more than 1".to_string());
                }
            }
            Allowed::GzipLevel => {
                if number(value) != -1 && !(1..=9).contains(&number(value)) {
                    return bad("Value must be between 1 and 9 or equal to -1".to_string());
                }
            }
            Allowed::OneOf(names) => {
                if !names.contains(&value) {
                    return bad(format!("String must be one of: {}", names.join(", ")));
                }
            }
            Allowed::SomeOf(names) => {
                if let Some(other) = list(value).into_iter().find(|member| !names.contains(member)) {
                    let why = format!("String must be one of: {}", names.join(", "));
                    return Err(self.bad(other, why));
                }
            }
            Allowed::Replicas => return self.check_replicas(value),
        }
        Ok(())
    }

    fn check_replicas(&self, value: &str) -> Result<(), BadValue> {
        let pair = |member: &str| {
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            member.split_once(':').is_some_and(|(partition, broker)| digits(partition) && digits(broker))
        };
        let members = list(value);
        if members == ["*"] || members.iter().all(|member| pair(member)) {
            return Ok(());
        }
        let key = self.key;
        let why = format!(
            "{key} must be the literal '*' or a list of replicas in the following format: \
             [partitionId]:[brokerId],[partitionId]:[brokerId],..."
        );
        Err(self.bad(&format!("[{}]", members.join(", ")), why))
    }

    fn bad(&self, value: &str, why: String) -> BadValue {
        let value = if self.kind.is_sensitive() { "[hidden]".to_string() } else { value.to_string() };
        BadValue { key: self.key, value, why }
    }
}

/// The members of a list value; none for an empty one.
pub fn list(value: &str) -> Vec<&str> {
    let text = value.trim();
    if text.is_empty() { Vec::new() } else { text.split(',').map(str::trim).collect() }
}

/// A canonical integer. The type check came first, so a value that is none cannot be here; it would fail every range.
fn number(value: &str) -> i64 {
    value.parse().unwrap_or(i64::MIN)
}

/// `text` as a whole number of the unit that the key's name ends in, if it carries a unit of that dimension.
fn plain_number(key: &str, text: &str) -> Option<i64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-')?;
    let (digits, unit) = text.split_at(split);
    let amount: f64 = digits.parse().ok()?;
    let scale = match unit.trim() {
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        unit if is_duration(key) => duration_ns(unit)? / duration_ns(unit_of(key))?,
        unit => bytes(unit)?,
    };
    let scaled = amount * scale;
    // Whole numbers only, and only those that a double holds exactly: 1.5KiB is 1536, 1.5 bytes is nothing.
    (scaled.fract() == 0.0 && scaled.abs() <= 9_007_199_254_740_992.0).then_some(scaled as i64)
}

fn unit_of(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

fn is_duration(key: &str) -> bool {
    duration_ns(unit_of(key)).is_some()
}

fn duration_ns(unit: &str) -> Option<f64> {
    Some(match unit {
        "us" => 1e3,
        "ms" => 1e6,
        "s" | "seconds" => 1e9,
        "m" | "min" | "minutes" => 60e9,
        "h" | "hours" => 3600e9,
        "d" | "days" => 86400e9,
        _ => return None,
    })
}

fn bytes(unit: &str) -> Option<f64> {
    Some(match unit {
        "B" => 1.0,
        "KB" | "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1048576.0,
        "GiB" => 1073741824.0,
        "TiB" => 1099511627776.0,
        _ => return None,
    })
}
