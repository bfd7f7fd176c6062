//! How a command ends: the exit codes, and failures that say what to try.

use std::process::ExitCode;

use crate::base::error::Fatal;
use crate::client::error::ClientError;

/// The exit codes, each with one meaning for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
    Threshold = 4,
    Environment = 5,
    Invalid = 6,
    /// 128 + SIGINT, as shells count.
    Interrupted = 130,
}

/// Printed by `corelog --help`.
pub const TABLE: &str = "\
Exit codes: 0 done · 1 failed · 2 usage · 3 broker unreachable · 4 threshold not met
            5 environment cannot do it · 6 measurement invalid · 130 interrupted";

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub error: Box<Fatal>,
}

pub type Outcome = Result<(), Failure>;

impl Failure {
    pub fn new(exit: Exit, error: Fatal) -> Failure {
        Failure { exit, error: Box::new(error) }
    }

    /// Wrong input: what is wrong with it, and what would be right.
    pub fn usage(summary: impl Into<String>, tries: &[&str]) -> Failure {
        Failure::plain(Exit::Usage, "usage", summary, "", tries)
    }

    pub fn plain(
        exit: Exit,
        code: &'static str,
        summary: impl Into<String>,
        found: &str,
        tries: &[&str],
    ) -> Failure {
        let tries = tries.iter().map(|t| t.to_string()).collect();
        Failure::new(
            exit,
            Fatal { code, summary: summary.into(), found: found.to_string(), means: String::new(), tries },
        )
    }

    /// A file or stream of this machine that could not be used.
    pub fn io(what: &str, error: &std::io::Error) -> Failure {
        let tries: &[&str] = match error.kind() {
            std::io::ErrorKind::NotFound => &["check the path"],
            std::io::ErrorKind::PermissionDenied => &["another path, or a user who may use it"],
            std::io::ErrorKind::StorageFull => &["make room on that file system"],
            _ => &["run the command again"],
        };
        Failure::plain(Exit::Failed, "io", what, &error.to_string(), tries)
    }

    /// Prints the error and yields the exit code.
    pub fn report(&self) -> ExitCode {
        eprintln!("{}", self.error);
        ExitCode::from(self.exit as u8)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let exit = match &error {
            ClientError::Input(_) => Exit::Usage,
            error if error.is_unreachable() => Exit::Unreachable,
            _ => Exit::Failed,
        };
        Failure::new(exit, error.to_fatal())
    }
}
