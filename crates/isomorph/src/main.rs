//! The `isomorph` command: the composition root, where engines, devices, disks and networks are put together.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`run`] | `isomorph run`: a machine in the foreground |
//! | [`system`], [`wiring`], [`x86_64`] | what machines of all kinds have for the command; x86-64 kernels on KVM |
//! | [`program`] | `isomorph run ./program` |
//! | [`repeat`] | `--deterministic`, `--record`, `--replay` |
//! | [`images`] | `isomorph image` |
//! | [`java`] | `isomorph java`, `isomorph run app.jar` |
//! | [`list`] | `isomorph ps`, `isomorph rm` |
//! | [`control`] | `isomorph pause`, `resume`, `stop`, `kill`, `info`: verbs from outside |
//! | [`compare`] | `isomorph compare` |
//! | [`snapshots`] | `isomorph snapshot` |
//! | [`doctor`] | `isomorph doctor` |
//! | [`webassembly`] | `isomorph run app.wasm` |
//! | [`console`], [`terminal`] | the guest's console on the user's terminal |
//! | [`debugging`] | `--gdb`, `--trace`, `--stats`, `--perf-map`, `--symbols` |
//! | [`home`] | the state home and the machines in it |
//! | [`progress`], [`size`] | how things are shown and written |
//!
//! An error ends here as one line on standard error and a status that is not zero: 2 for a wrong command line, 1 for the rest.

#![allow(unreachable_pub, reason = "a program has no outside; `pub` is what a module gives to its neighbours")]

mod cli;
mod compare;
mod console;
mod control;
mod debugging;
mod disks;
mod doctor;
mod home;
mod images;
mod java;
mod list;
mod program;
mod progress;
mod repeat;
mod run;
mod size;
mod snapshots;
mod system;
mod terminal;
mod webassembly;
mod wiring;
mod x86_64;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser};

use cli::{Cli, Command, DebugArgs, PermissionArgs, RunArgs};
use control::Place;
use linux::start::Program;

fn main() -> ExitCode {
    // What programs execute begins at once, without a command line of ours.
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(program) = linux::exec::from_arguments(&arguments) {
        let place = program.machine.as_ref().map(|name| (Place::Unnamed(name.to_string_lossy().into_owned()), None));
        return program::fail(program::become_program(
            program,
            &DebugArgs::default(),
            &PermissionArgs::default(),
            place,
        ));
    }
    if let Some(program) = linux::binfmt::from_kernel(&arguments) {
        return program::fail(program::become_program(
            Program { sysroot: program::default_sysroot(), ..program },
            &DebugArgs::default(),
            &PermissionArgs::default(),
            None,
        ));
    }
    // Nor do the options of java.
    if arguments.get(1).is_some_and(|command| command == "java") {
        return java::command(&arguments[2..]).unwrap_or_else(|error| {
            eprintln!("isomorph: {error:#}");
            ExitCode::FAILURE
        });
    }
    let command = match command(arguments.clone()) {
        Ok(command) => command,
        Err(error) => return usage(&error, &named(&arguments)),
    };
    let result = match command {
        Command::Run(args) => {
            if let Some(directory) = x86_64::snapshot(&args) {
                x86_64::run_snapshot(*args, &directory)
            } else if let Some(path) = webassembly::of(&args) {
                webassembly::run(&args, path)
            } else if let Some(path) = java::of(&args) {
                java::run(&args, path)
            } else if let Some(program) = program::of(&args) {
                return program::fail(program.and_then(|program| program::run(program, &args)));
            } else {
                run::run(&args)
            }
        }
        Command::Ps(args) => list::list(&args.list).map(|()| ExitCode::SUCCESS),
        Command::Info(args) => control::commands::info(&args).map(|()| ExitCode::SUCCESS),
        Command::Pause(args) => control::commands::pause(&args).map(|()| ExitCode::SUCCESS),
        Command::Resume(args) => control::commands::resume(&args).map(|()| ExitCode::SUCCESS),
        Command::Stop(args) => control::commands::stop(&args).map(|()| ExitCode::SUCCESS),
        Command::Kill(args) => control::commands::kill(&args).map(|()| ExitCode::SUCCESS),
        Command::Rm(args) => list::remove(&args).map(|()| ExitCode::SUCCESS),
        Command::Image(command) => images::command(&command).map(|()| ExitCode::SUCCESS),
        Command::Snapshot(command) => snapshots::command(&command).map(|()| ExitCode::SUCCESS),
        Command::Register(args) => program::register(&args).map(|()| ExitCode::SUCCESS),
        Command::Compare(args) => compare::compare(&args),
        Command::Java { words } => java::command(&words),
        Command::Doctor(args) => diagnose(&args).map(|()| ExitCode::SUCCESS),
        Command::TerminalGuard => terminal::guard().map(|()| ExitCode::SUCCESS).map_err(Into::into),
    };
    result.unwrap_or_else(|error| {
        eprintln!("isomorph: {error:#}");
        ExitCode::FAILURE
    })
}

/// What a command line says.
fn command(mut arguments: Vec<OsString>) -> Result<Command, clap::Error> {
    if arguments.get(1).is_some_and(|command| command == "run") {
        let mut run = cli::run_command();
        arguments = program::separate_arguments(&run, arguments);
        // What is wrong with it, or asks for help, is seen in the light of the whole below.
        if let Ok(matches) = run.try_get_matches_from_mut(&arguments[1..]) {
            return RunArgs::from_arg_matches(&matches).map(|args| Command::Run(Box::new(args)));
        }
    }
    Cli::try_parse_from(arguments).map(|cli| cli.command)
}

/// The command that a command line names, as in `isomorph image pull`. Describes all commands, which takes time: for errors only.
fn named(arguments: &[OsString]) -> String {
    let (mut command, mut words) = (Cli::command(), vec!["isomorph".to_owned()]);
    for argument in arguments.iter().skip(1) {
        let Some(found) = argument.to_str().and_then(|name| command.find_subcommand(name)) else { break };
        words.push(found.get_name().to_owned());
        command = found.clone();
    }
    words.join(" ")
}

/// Help and version as they are; anything else as one line with what to do next.
fn usage(error: &clap::Error, named: &str) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
    }
    eprintln!("isomorph: {}", one_line(error, named));
    ExitCode::from(2)
}

/// The message of a command-line error, its tip and where to read on, in one line.
fn one_line(error: &clap::Error, named: &str) -> String {
    let text = error.render().to_string();
    let body = text.strip_prefix("error: ").unwrap_or(&text);
    let message = ["\n\nUsage:", "\n\nFor more"].iter().fold(body, |text, end| text.split(end).next().unwrap_or(text));
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut parts: Vec<_> = message.split("\n\n").map(words).filter(|part| !part.is_empty()).collect();
    let told = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let (argument, value) = (told(ContextKind::InvalidArg), told(ContextKind::InvalidValue));
    if argument.starts_with("--cpu ") && value.parse::<u32>().is_ok() {
        parts.push(format!("how many processors: --cpus {value}"));
    }
    format!("{}; see '{named} --help'", parts.join("; "))
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
        let arguments: Vec<_> = std::iter::once(&"isomorph").chain(arguments).map(OsString::from).collect();
        one_line(&Cli::try_parse_from(&arguments).unwrap_err(), &named(&arguments))
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
        assert!(error_line(&["run", "--cpus", "0", "debian"]).ends_with("see 'isomorph run --help'"));
        assert!(error_line(&["image", "pull", "--wiht", "x"]).ends_with("see 'isomorph image pull --help'"));
        assert!(error_line(&["run", "--cpu", "2", "debian"]).contains("; how many processors: --cpus 2;"));
        assert!(error_line(&["imgae", "ls"]).contains("'image'"), "{}", error_line(&["imgae", "ls"]));
    }

    #[test]
    fn run_is_understood_alone_as_among_the_others() {
        for line in ["run debian --cpus 2", "run --memory 64M app.wasm --its own", "run --kernel Image"] {
            let words = || std::iter::once("isomorph").chain(line.split(' ')).map(OsString::from);
            let alone = command(words().collect()).unwrap();
            let separated = program::separate_arguments(&cli::run_command(), words().collect());
            let whole = Cli::try_parse_from(separated).unwrap().command;
            assert_eq!(format!("{alone:?}"), format!("{whole:?}"));
        }
        assert_eq!(
            command(vec!["isomorph".into(), "run".into()]).unwrap_err().kind(),
            ErrorKind::MissingRequiredArgument
        );
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
