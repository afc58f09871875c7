//! The `isomorph` command: the composition root, where engines, devices, disks and networks are put together.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`run`] | `isomorph run`: a machine in the foreground |
//! | [`program`] | `isomorph run ./program` |
//! | [`repeat`] | `--deterministic`, `--record`, `--replay` |
//! | [`images`] | `isomorph image` |
//! | [`list`] | `isomorph ps`, `isomorph rm` |
//! | [`doctor`] | `isomorph doctor` |
//! | [`console`], [`terminal`] | the guest's console on the user's terminal |
//! | [`debugging`] | `--gdb`, `--trace`, `--stats`, `--perf-map`, `--symbols` |
//! | [`home`] | the state home and the machines in it |
//! | [`progress`], [`size`] | how things are shown and written |
//!
//! An error ends here as one line on standard error and a status that is not zero: 2 for a wrong command line, 1 for the rest.

#![allow(unreachable_pub, reason = "a program has no outside; `pub` is what a module gives to its neighbours")]

mod cli;
mod console;
mod debugging;
mod doctor;
mod home;
mod images;
mod list;
mod program;
mod progress;
mod repeat;
mod run;
mod size;
mod terminal;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use cli::{Cli, Command, DebugArgs};
use linux::start::Program;

fn main() -> ExitCode {
    // What programs execute begins at once, without a command line of ours.
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(program) = linux::exec::from_arguments(&arguments) {
        return program::fail(program::become_program(program, &DebugArgs::default()));
    }
    if let Some(program) = linux::binfmt::from_kernel(&arguments) {
        return program::fail(program::become_program(
            Program { sysroot: program::default_sysroot(), ..program },
            &DebugArgs::default(),
        ));
    }
    let cli = match Cli::try_parse_from(program::separate_arguments(arguments)) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match cli.command {
        Command::Run(args) => match program::of(&args) {
            Some(program) => {
                return program::fail(program.and_then(|program| program::become_program(program, &args.debug)));
            }
            None => run::run(&args),
        },
        Command::Ps(args) => list::list(&args).map(|()| ExitCode::SUCCESS),
        Command::Rm(args) => list::remove(&args).map(|()| ExitCode::SUCCESS),
        Command::Image(command) => images::command(&command).map(|()| ExitCode::SUCCESS),
        Command::Register(args) => program::register(&args).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => diagnose(&args).map(|()| ExitCode::SUCCESS),
        Command::TerminalGuard => terminal::guard().map(|()| ExitCode::SUCCESS).map_err(Into::into),
    };
    result.unwrap_or_else(|error| {
        eprintln!("isomorph: {error:#}");
        ExitCode::FAILURE
    })
}

/// Help and version as they are; anything else as one line with what to do next.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
    }
    eprintln!("isomorph: {}", one_line(&error.render().to_string()));
    ExitCode::from(2)
}

/// The message of a command-line error, its tip and where to read on, in one line.
fn one_line(text: &str) -> String {
    let body = text.strip_prefix("error: ").unwrap_or(text);
    let usage = body.find("\n\nUsage:");
    let (message, rest) = body.split_at(usage.unwrap_or(body.len()));
    let message = message.split_once("\n\nFor more").map_or(message, |(message, _)| message);
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let command: Vec<_> = rest
        .trim_start()
        .strip_prefix("Usage: ")
        .unwrap_or("isomorph")
        .split_whitespace()
        .take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    let parts: Vec<_> = message.split("\n\n").map(words).filter(|part| !part.is_empty()).collect();
    format!(
        "{}; see '{} --help'",
        parts.join("; "),
        if command.is_empty() { "isomorph".into() } else { command.join(" ") }
    )
}

/// Prints a result: text for people, or JSON.
fn print_result(json: bool, text: &str, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written =
        if json { writeln!(out, "{}", serde_json::to_string_pretty(value)?) } else { out.write_all(text.as_bytes()) };
    match written {
        // The reader (`head`, a pager) has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn diagnose(args: &cli::ListArgs) -> anyhow::Result<()> {
    let findings = doctor::examine();
    print_result(args.json, &doctor::table(&findings), &findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_line(arguments: &[&str]) -> String {
        let arguments = std::iter::once(&"isomorph").chain(arguments);
        one_line(&Cli::try_parse_from(arguments).unwrap_err().render().to_string())
    }

    #[test]
    fn usage_errors_are_one_line() {
        let line = error_line(&["run", "--frobnicate"]);
        assert_eq!(line.lines().count(), 1);
        assert!(line.contains("unexpected argument '--frobnicate' found"), "{line}");
        assert!(line.ends_with("see 'isomorph run --help'"), "{line}");
        for wrong in [
            &["run"][..],
            &["run", "debian", "--cpus", "0"],
            &["run", "debian", "--memory", "lots"],
            &["run", "debian", "--publish", "nonsense"],
            &["run", "debian", "--kernel", "Image"],
            &["run", "--initrd", "x", "--firmware", "y"],
            &["rm"],
            &["imgae", "ls"],
        ] {
            let line = error_line(wrong);
            assert_eq!(line.lines().count(), 1, "{line}");
            assert!(line.contains("--help'"), "{line}");
        }
        assert!(error_line(&["imgae", "ls"]).contains("'image'"), "{}", error_line(&["imgae", "ls"]));
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
