//! What a program finds when it begins: its memory, and on its stack arguments, environment and auxiliary vector.
//!
//! ```text
//! sp ->  argc | argv ... 0 | envp ... 0 | auxv (type, value) ... AT_NULL | random bytes, strings
//! ```
//!
//! RISC-V ELF psABI and Linux `fs/binfmt_elf.c`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use machine::entropy::Entropy;

use crate::elf::{ElfError, Headers, Loaded};
use crate::space::{AddressSpace, EXECUTE, PAGE, READ, SIZE, WRITE};
use crate::strace::CallLog;
use crate::sys::raw;
use crate::sysroot::redirect;
use crate::vdso::{VDSO_SIZE, Vdso};

/// Bytes of the first thread's stack.
const STACK_SIZE: u64 = 8 << 20;
/// Where it ends.
pub(crate) const STACK_END: u64 = SIZE - (1 << 20);
/// The most that arguments and environment may take.
const STRINGS_MAX: usize = 2 << 20;
/// I, M, A, F, D, C as letters of the alphabet.
const HWCAP: u64 = 1 << 8 | 1 << 12 | 1 | 1 << 5 | 1 << 3 | 1 << 2;

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The file, on the host.
    pub path: PathBuf,
    /// Its arguments, the name it is called by among them.
    pub arguments: Vec<OsString>,
    /// Where its libraries are; paths that are there are taken from there.
    pub sysroot: Option<PathBuf>,
    /// Where its system calls are told, if they are.
    pub call_log: Option<CallLog>,
    /// How its code is executed.
    pub options: riscv::translate::Options,
    /// The name under which the process is controlled from outside already, by what it executed before.
    pub machine: Option<OsString>,
}

/// Why a program does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file is no program.
    #[error("{}: {cause}", path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: ElfError,
    },
    /// The loader that it names is not there.
    #[error("{}: its loader {} is not on this host; say with --sysroot where riscv64 libraries are (a folder with lib, as of Debian's libc6-riscv64-cross)", path.display(), loader.display())]
    NoLoader {
        /// The file.
        path: PathBuf,
        /// What it asks for.
        loader: PathBuf,
    },
    /// Arguments and environment are too long.
    #[error("the arguments and the environment take more than {STRINGS_MAX} bytes; pass fewer")]
    TooLong,
    /// The host refuses something.
    #[error("the host refuses {what}: {cause}")]
    Host {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        cause: std::io::Error,
    },
    /// Nobody can control it from outside, who was to; the cause says so.
    #[error(transparent)]
    Control(std::io::Error),
    /// The vdso could not be written, which is our own mistake.
    #[error("the vdso cannot be assembled: {0}")]
    Vdso(#[from] riscv::isa::AssembleError),
}

/// A program in memory.
#[derive(Debug)]
pub struct Started {
    /// The first instruction.
    pub pc: u64,
    /// The stack pointer.
    pub sp: u64,
    /// Where signal handlers return to.
    pub sigreturn: u64,
    /// The auxiliary vector, as it is on the stack.
    pub auxiliary: Vec<u8>,
}

fn refused(what: &'static str) -> impl Fn(i64) -> StartError {
    move |error| {
        let cause = std::io::Error::from_raw_os_error(i32::try_from(-error).unwrap_or(libc::EIO));
        StartError::Host { what, cause }
    }
}

fn load(space: &AddressSpace, path: &Path, is_program: bool) -> Result<(Headers, Loaded), StartError> {
    let failed = |cause: ElfError| StartError::Elf { path: path.into(), cause };
    let file = File::open(path).map_err(|error| failed(ElfError::Read(error)))?;
    let headers = Headers::read(&file).map_err(failed)?;
    let loaded = headers.map(&file, space, is_program).map_err(failed)?;
    Ok((headers, loaded))
}

/// Puts `program` into an empty address space.
///
/// # Errors
/// See [`StartError`].
pub fn start(program: &Program, environment: &[OsString], space: &AddressSpace) -> Result<Started, StartError> {
    // A link in the sysroot leads to what it means there.
    let path = redirect(program.sysroot.as_deref(), program.path.as_os_str().as_bytes(), true)
        .filter(|_| program.sysroot.as_ref().is_some_and(|sysroot| program.path.starts_with(sysroot)))
        .map_or_else(|| program.path.clone(), |path| PathBuf::from(OsString::from_vec(path.into_bytes())));
    let (headers, main) = load(space, &path, true)?;
    space.set_heap(main.end);
    let (mut pc, mut loader_base) = (main.entry, 0);
    if let Some(name) = headers.interpreter {
        let path = match redirect(program.sysroot.as_deref(), &name, true) {
            Some(inside) => PathBuf::from(OsString::from_vec(inside.into_bytes())),
            None => PathBuf::from(OsString::from_vec(name)),
        };
        if !path.exists() {
            return Err(StartError::NoLoader { path: program.path.clone(), loader: path });
        }
        let (_, loader) = load(space, &path, false)?;
        (pc, loader_base) = (loader.entry, loader.bias);
    }
    let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let vdso = Vdso::build()?;
    let vdso_at =
        space.map(0, VDSO_SIZE as u64, READ | WRITE, anonymous, u64::MAX, 0).map_err(refused("a page for the vdso"))?;
    space.write(vdso_at, &vdso.image).map_err(refused("the vdso's page"))?;
    space.protect(vdso_at, VDSO_SIZE as u64, READ | EXECUTE).map_err(refused("the vdso's page"))?;

    let fixed = anonymous | libc::MAP_FIXED as u64 | libc::MAP_NORESERVE as u64;
    space
        .map(STACK_END - STACK_SIZE, STACK_SIZE, READ | WRITE, fixed, u64::MAX, 0)
        .map_err(refused("memory for the stack"))?;
    let mut stack = Stack { at: STACK_END - PAGE, space };
    let mut random = [0; 16];
    Entropy::Host.fill(&mut random).map_err(|cause| StartError::Host { what: "random bytes", cause })?;
    let (name, platform) = (stack.string(program.path.as_os_str())?, stack.string(OsStr::new("riscv64"))?);
    let random = stack.bytes(&random)?;
    let environment = environment.iter().map(|text| stack.string(text)).collect::<Result<Vec<_>, _>>()?;
    let arguments = program.arguments.iter().map(|text| stack.string(text)).collect::<Result<Vec<_>, _>>()?;
    let id = |number: i64| {
        // SAFETY: these calls have no arguments and cannot fail.
        unsafe { raw(number, [0; 6]) }.unsigned_abs()
    };
    let (uid, euid) = (id(libc::SYS_getuid), id(libc::SYS_geteuid));
    let (gid, egid) = (id(libc::SYS_getgid), id(libc::SYS_getegid));
    let auxiliary = [
        (libc::AT_SYSINFO_EHDR, vdso_at),
        (libc::AT_HWCAP, HWCAP),
        (libc::AT_PAGESZ, PAGE),
        (libc::AT_CLKTCK, 100),
        (libc::AT_PHDR, main.headers),
        (libc::AT_PHENT, 56),
        (libc::AT_PHNUM, main.headers_count.into()),
        (libc::AT_BASE, loader_base),
        (libc::AT_FLAGS, 0),
        (libc::AT_ENTRY, main.entry),
        (libc::AT_UID, uid),
        (libc::AT_EUID, euid),
        (libc::AT_GID, gid),
        (libc::AT_EGID, egid),
        (libc::AT_SECURE, u64::from(uid != euid || gid != egid)),
        (libc::AT_RANDOM, random),
        (libc::AT_EXECFN, name),
        (libc::AT_PLATFORM, platform),
        (libc::AT_NULL, 0),
    ];
    let vector = auxiliary.iter().flat_map(|(kind, value)| [*kind, *value]).flat_map(u64::to_le_bytes).collect();
    let mut words = vec![arguments.len() as u64];
    words.extend(arguments.iter().chain(&[0]).chain(&environment).chain(&[0]));
    words.extend(auxiliary.iter().flat_map(|(kind, value)| [*kind, *value]));
    let bytes: Vec<_> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    stack.at = (stack.at & !15) - (bytes.len() as u64).next_multiple_of(16);
    space.write(stack.at, &bytes).map_err(|_| StartError::TooLong)?;
    Ok(Started { pc, sp: stack.at, sigreturn: vdso_at + vdso.sigreturn, auxiliary: vector })
}

/// Growing down.
struct Stack<'a> {
    at: u64,
    space: &'a AddressSpace,
}

impl Stack<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<u64, StartError> {
        self.at -= bytes.len() as u64;
        if bytes.len() > STRINGS_MAX || STACK_END - self.at > STRINGS_MAX as u64 {
            return Err(StartError::TooLong);
        }
        self.space.write(self.at, bytes).map_err(|_| StartError::TooLong)?;
        Ok(self.at)
    }

    fn string(&mut self, text: &OsStr) -> Result<u64, StartError> {
        self.bytes(&[0])?;
        self.bytes(text.as_bytes())
    }
}
