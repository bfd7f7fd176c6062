//! Every flag is an environment variable too: `CORELOG_`, and its long name in upper case.

use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, Command};

/// Flags whose plain variable means something else elsewhere, as (command, flag, variable): `--format` of `consume` is the shape of a record,
/// and what `demo` and `calibrate pipeline` remove at their end must never be the data of a broker.
const RENAMED: &[(&str, &str, &str)] = &[
    ("consume", "format", "CORELOG_RECORD_FORMAT"),
    ("demo", "data-dir", "CORELOG_DEMO_DATA_DIR"),
    ("pipeline", "data-dir", "CORELOG_CALIBRATE_DATA_DIR"),
    ("pipeline", "listen", "CORELOG_CALIBRATE_LISTEN"),
];

/// Gives each flag its variable, in this command and those below it. Lists take one value from it, or several at their delimiter.
pub fn of_every_flag(command: Command) -> Command {
    let name = command.get_name().to_string();
    command.mut_args(|arg| with_variable(&name, arg)).mut_subcommands(of_every_flag)
}

/// The variable of a command's flag.
pub fn variable(command: &str, flag: &str) -> String {
    let renamed = RENAMED.iter().find(|(of, long, _)| (*of, *long) == (command, flag));
    renamed.map_or_else(
        || format!("CORELOG_{}", flag.to_ascii_uppercase().replace(['-', '.'], "_")),
        |(_, _, name)| name.to_string(),
    )
}

fn with_variable(command: &str, arg: Arg) -> Arg {
    let Some(long) = arg.get_long().filter(|long| !matches!(*long, "help" | "version")) else { return arg };
    if arg.get_env().is_some() {
        return arg.hide_env_values(true);
    }
    // The parser wants a name that lives as long as the program, which is how long the command is used.
    let name: &'static str = Box::leak(variable(command, long).into_boxed_str());
    let arg = arg.env(name).hide_env_values(true);
    match arg.get_action() {
        ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
        _ => arg,
    }
}
