//! The binary: parses arguments and calls the command line.

fn main() -> std::process::ExitCode {
    corelog::cli::main()
}
