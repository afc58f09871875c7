//! `execve`: from a file's name to the program that the host shall start.
//!
//! A program of the guest's processor is this command again, with what it needs to go on in place of its own command line; everything that
//! a process keeps through `execve` (number, descriptors, ignored and blocked signals, directory) is kept by the host's kernel. A script
//! is its interpreter, and anything else is the host's business: its own programs start as they are.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use riscv::translate::Options;

use crate::elf::is_riscv;
use crate::files::path;
use crate::process::Thread;
use crate::space::AddressSpace;
use crate::start::Program;
use crate::strace::CallLog;
use crate::sys::EINVAL;
use crate::sys::raw;
use crate::sysroot::redirect;

/// The name by which the command knows that it is to go on with a program: [`from_arguments`].
pub const NAME: &str = "isomorph-program";

/// What arguments and environment may take together.
const STRINGS_MAX: usize = 2 << 20;
/// A line that names an interpreter, at most: `BINPRM_BUF_SIZE`.
const LINE_MAX: usize = 256;
/// Interpreters of interpreters.
const SCRIPTS_MAX: usize = 5;

const E2BIG: i64 = -(libc::E2BIG as i64);
const ENOEXEC: i64 = -(libc::ENOEXEC as i64);

fn strings(space: &AddressSpace, at: u64) -> Result<Vec<CString>, i64> {
    let mut strings = Vec::new();
    let mut size = 0;
    if at == 0 {
        return Ok(strings);
    }
    loop {
        let pointer = space.read_u64(at.wrapping_add(8 * strings.len() as u64))?;
        if pointer == 0 {
            return Ok(strings);
        }
        let text = space
            .read_string(pointer, 128 << 10)
            .map_err(|error| if error == -i64::from(libc::ENAMETOOLONG) { E2BIG } else { error })?;
        size += text.len() + 9;
        if size > STRINGS_MAX {
            return Err(E2BIG);
        }
        strings.push(CString::new(text).map_err(|_| EINVAL)?);
    }
}

/// Interpreter and argument in a script's first line.
fn interpreter(start: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let end = line.iter().position(|byte| byte.is_ascii_whitespace());
    let (name, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_ascii();
    (!name.is_empty()).then_some((name, (!rest.is_empty()).then_some(rest)))
}

/// `execveat(directory, path, arguments, environment, flags)`. Comes back only if it fails.
pub(crate) fn execve(
    thread: &Thread,
    directory: u64,
    name: u64,
    arguments: u64,
    environment: u64,
    flags: u64,
) -> Result<i64, i64> {
    let space = &thread.process.space;
    let sysroot = thread.process.sysroot.as_deref();
    let mut file = path(thread, name, true)?;
    let is_relative = !file.as_bytes().starts_with(b"/");
    if is_relative && (directory.cast_signed() != i64::from(libc::AT_FDCWD)) {
        let base = format!("/proc/self/fd/{}", crate::sys::low(directory));
        let at_descriptor = file.is_empty() && flags & libc::AT_EMPTY_PATH as u64 != 0;
        let full = if at_descriptor { base.into_bytes() } else { [base.as_bytes(), b"/", file.as_bytes()].concat() };
        file = CString::new(full).map_err(|_| EINVAL)?;
    }
    let mut arguments = strings(space, arguments)?;
    let environment = strings(space, environment)?;
    if arguments.is_empty() {
        arguments.push(CString::default());
    }
    for _ in 0..SCRIPTS_MAX {
        // SAFETY: the kernel reads the path.
        let allowed = unsafe {
            raw(libc::SYS_faccessat, [libc::AT_FDCWD as u64, file.as_ptr() as u64, libc::X_OK as u64, 0, 0, 0])
        };
        if allowed < 0 {
            return Err(allowed);
        }
        let mut start = Vec::new();
        // A file that may be executed but not read is none of the guest's.
        let read = File::open(OsStr::from_bytes(file.as_bytes()))
            .and_then(|file| file.take(LINE_MAX as u64).read_to_end(&mut start));
        if read.is_ok() && is_riscv(&start) {
            let sysroot = sysroot.map_or(OsStr::new(""), |path| path.as_os_str());
            let sysroot = CString::new(sysroot.as_bytes()).map_err(|_| EINVAL)?;
            let own = CString::new(NAME).map_err(|_| EINVAL)?;
            let options = CString::new(thread.process.options.switches()).map_err(|_| EINVAL)?;
            let log = thread.process.call_log.as_ref().map_or(OsStr::new(""), |log| log.path().as_os_str());
            let log = CString::new(log.as_bytes()).map_err(|_| EINVAL)?;
            let machine = thread.process.hold.name().map_or(OsStr::new(""), |name| name);
            let machine = CString::new(machine.as_bytes()).map_err(|_| EINVAL)?;
            let all = [own, options, log, machine, sysroot, file].into_iter().chain(arguments).collect::<Vec<_>>();
            return Err(replace(c"/proc/self/exe", &all, &environment));
        }
        let Some((name, argument)) = interpreter(&start) else {
            return Err(replace(&file, &arguments, &environment));
        };
        let interpreter = CString::new(name).map_err(|_| ENOEXEC)?;
        let mut longer = vec![interpreter.clone()];
        if let Some(argument) = argument {
            longer.push(CString::new(argument).map_err(|_| ENOEXEC)?);
        }
        longer.push(file);
        longer.extend(arguments.into_iter().skip(1));
        arguments = longer;
        file = redirect(sysroot, interpreter.as_bytes(), true).unwrap_or(interpreter);
    }
    Err(-i64::from(libc::ELOOP))
}

impl Program {
    /// If the file is a script, its interpreter instead, as `execve` does it.
    #[must_use]
    pub fn through_interpreters(mut self) -> Self {
        for _ in 0..SCRIPTS_MAX {
            let mut start = Vec::new();
            let read = File::open(&self.path).and_then(|file| file.take(LINE_MAX as u64).read_to_end(&mut start));
            let Some((name, argument)) = read.ok().and_then(|_| interpreter(&start)) else { break };
            let to_os = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
            let script = std::mem::replace(&mut self.path, to_os(name).into());
            if let Some(inside) = redirect(self.sysroot.as_deref(), name, true) {
                self.path = to_os(inside.as_bytes()).into();
            }
            let own = [Some(to_os(name)), argument.map(to_os), Some(script.into_os_string())].into_iter().flatten();
            self.arguments = own.chain(self.arguments.drain(..).skip(1)).collect();
        }
        self
    }
}

/// The host's `execve`. The answer is its error.
fn replace(file: &std::ffi::CStr, arguments: &[CString], environment: &[CString]) -> i64 {
    let pointers =
        |strings: &[CString]| -> Vec<u64> { strings.iter().map(|text| text.as_ptr() as u64).chain([0]).collect() };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    let all = [file.as_ptr() as u64, arguments.as_ptr() as u64, environment.as_ptr() as u64, 0, 0, 0];
    // SAFETY: the kernel reads strings and arrays, all of which end with zero.
    unsafe { raw(libc::SYS_execve, all) }
}

/// The program that a process was told to go on with, if its arguments are those that `execve` gives here.
#[must_use]
pub fn from_arguments(arguments: &[OsString]) -> Option<Program> {
    let [name, options, log, machine, sysroot, path, rest @ ..] = arguments else { return None };
    let options = Options::parse(options.to_str()?).ok()?;
    (name == NAME).then(|| Program {
        options,
        call_log: (!log.is_empty()).then(|| CallLog::new(Path::new(log))),
        machine: (!machine.is_empty()).then(|| machine.clone()),
        path: PathBuf::from(path),
        arguments: rest.to_vec(),
        sysroot: (!sysroot.is_empty()).then(|| PathBuf::from(OsString::from_vec(sysroot.clone().into_vec()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_name_their_interpreter() {
        assert_eq!(interpreter(b"#!/bin/sh\necho"), Some((&b"/bin/sh"[..], None)));
        assert_eq!(interpreter(b"#! /usr/bin/env  -S x y \n"), Some((&b"/usr/bin/env"[..], Some(&b"-S x y"[..]))));
        assert_eq!(interpreter(b"#!\n"), None);
        assert_eq!(interpreter(b"echo"), None);
    }

    #[test]
    fn a_script_is_its_interpreter() {
        let directory = tempfile::tempdir().unwrap();
        let (outer, inner) = (directory.path().join("outer"), directory.path().join("inner"));
        std::fs::write(&outer, format!("#!{} -x y\n", inner.display())).unwrap();
        std::fs::write(&inner, "#!/bin/shell\n").unwrap();
        let program = Program {
            path: outer.clone(),
            arguments: ["called", "a"].map(OsString::from).to_vec(),
            sysroot: None,
            options: Options::default(),
            call_log: None,
            machine: None,
        };
        let program = program.through_interpreters();
        assert_eq!(program.path, Path::new("/bin/shell"));
        let (outer, inner) = (outer.into_os_string(), inner.into_os_string());
        assert_eq!(program.arguments, ["/bin/shell".into(), inner, "-x y".into(), outer, "a".into()]);
    }

    #[test]
    fn a_program_goes_on_with_what_it_was_given() {
        let arguments: Vec<OsString> =
            [NAME, "no-links", "-", "x-1", "", "/bin/x", "x", "-a"].map(OsString::from).to_vec();
        let program = from_arguments(&arguments).unwrap();
        assert_eq!(program.arguments, ["x", "-a"]);
        assert_eq!((program.path, program.sysroot), ("/bin/x".into(), None));
        assert_eq!(program.machine, Some("x-1".into()));
        assert_eq!(program.call_log, Some(CallLog::new(Path::new("-"))));
        assert_eq!(program.options, Options { links: false, ..Options::default() });
        assert_eq!(from_arguments(&["isomorph".into(), "".into(), "".into(), "ps".into(), "a".into()]), None);
    }
}
