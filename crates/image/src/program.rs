//! Running programs of the host.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::Error;
use crate::error::tail;

/// Where administrators' programs are that an ordinary user's `PATH` may lack.
const ADMINISTRATION: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The path of `program`, which the Debian package `package` has.
pub(crate) fn find(program: &'static str, package: &'static str) -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(ADMINISTRATION.iter().map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or(Error::MissingProgram { program, package })
}

/// A command whose messages are in English and that reads nothing.
pub(crate) fn command(program: &PathBuf) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Runs `command` to its end.
pub(crate) fn output(command: &mut Command) -> Result<Output, Error> {
    command.output().map_err(|cause| start_error(command, cause))
}

/// Runs `command` to its end, which must be a success; answers what it printed.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>, Error> {
    let output = output(command)?;
    if output.status.success() { Ok(output.stdout) } else { Err(failure(command, &output.stderr)) }
}

/// The error for a `command` that ended badly having said `stderr`.
pub(crate) fn failure(command: &Command, stderr: &[u8]) -> Error {
    Error::Program { program: name(command), tail: tail(stderr, 4) }
}

/// The error for a `command` that did not start.
pub(crate) fn start_error(command: &Command, cause: io::Error) -> Error {
    Error::Host { action: format!("start {}", name(command)), cause }
}

fn name(command: &Command) -> String {
    PathBuf::from(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let text = find("no-such-program", "some-package").unwrap_err().to_string();
        assert_eq!(text, "building an image needs the program no-such-program: install the package some-package");
    }

    #[test]
    fn a_failure_carries_the_program_s_last_words() {
        let shell = find("sh", "dash").unwrap();
        let text = run(command(&shell).args(["-c", "echo bad >&2; exit 3"])).unwrap_err().to_string();
        assert_eq!(text, "sh failed: bad");
        assert_eq!(run(command(&shell).args(["-c", "echo good"])).unwrap(), b"good\n");
    }
}
