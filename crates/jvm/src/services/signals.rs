//! Signals of the host: those that end a process, those that a program handles, and those that mean a crash.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// What the host says of a crash.
#[derive(Debug)]
pub struct Crash {
    /// As `SIGSEGV`.
    pub name: &'static str,
    /// Number of the signal.
    pub number: i32,
    /// The instruction.
    pub pc: usize,
    /// What it accessed, if that is known.
    pub address: Option<usize>,
    /// The library and the function of the instruction.
    pub place: String,
    /// Number of the process.
    pub process: i32,
    /// Number of the thread.
    pub thread: i64,
}

static REPORT: OnceLock<fn(&Crash)> = OnceLock::new();
static LOST: OnceLock<fn() -> bool> = OnceLock::new();

const CRASHES: [(i32, &str); 4] =
    [(libc::SIGSEGV, "SIGSEGV"), (libc::SIGBUS, "SIGBUS"), (libc::SIGFPE, "SIGFPE"), (libc::SIGILL, "SIGILL")];

/// Calls `report` when a thread of the process crashes, and then ends the process by SIGABRT.
///
/// # Errors
/// If the host refuses.
pub fn on_crash(report: fn(&Crash)) -> io::Result<()> {
    let _ = REPORT.set(report);
    for (number, _) in CRASHES {
        install(number, crashed as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER)?;
    }
    Ok(())
}

/// Calls `lost` when a thread has accessed what a mapped file has no more, which is then zeroes. It is no crash if that returns `true`.
pub fn on_lost_memory(lost: fn() -> bool) {
    let _ = LOST.set(lost);
}

/// Sets the handler of a signal; the one before.
fn install(number: i32, handler: usize, flags: i32) -> io::Result<usize> {
    // SAFETY: all zeroes are a valid action; the handler is a function of the type that the flags name, or SIG_DFL or SIG_IGN.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        let mut before: libc::sigaction = MaybeUninit::zeroed().assume_init();
        if libc::sigaction(number, &raw const action, &raw mut before) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(before.sa_sigaction)
    }
}

extern "C" fn crashed(number: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes it.
    let accessed = unsafe { (*info).si_addr().addr() };
    if number == libc::SIGBUS && super::files::mend(accessed) && LOST.get().is_some_and(|lost| lost()) {
        return;
    }
    // A crash while a crash is reported: then that is all.
    for (number, _) in CRASHES {
        let _ = install(number, libc::SIG_DFL, 0);
    }
    let name = CRASHES.iter().find(|(known, _)| *known == number).map_or("signal", |(_, name)| name);
    // SAFETY: the kernel passes it.
    let pc = unsafe { program_counter(context) };
    let crash = Crash {
        name,
        number,
        pc,
        address: matches!(number, libc::SIGSEGV | libc::SIGBUS).then_some(accessed),
        place: place(pc),
        process: std::process::id().cast_signed(),
        // SAFETY: takes nothing.
        thread: i64::from(unsafe { libc::gettid() }),
    };
    if let Some(report) = REPORT.get() {
        report(&crash);
    }
    // SAFETY: ends the process.
    unsafe { libc::abort() };
}

/// # Safety
/// The context is that of a signal handler.
#[cfg(target_arch = "x86_64")]
unsafe fn program_counter(context: *mut libc::c_void) -> usize {
    // SAFETY: the caller's promise.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    usize::try_from(registers[libc::REG_RIP as usize].cast_unsigned()).unwrap_or(0)
}

/// As `[libx.so+0x10]  name+0x4`.
fn place(pc: usize) -> String {
    // SAFETY: all zeroes are a valid value, and the call only writes it.
    let info = unsafe {
        let mut info: libc::Dl_info = MaybeUninit::zeroed().assume_init();
        if libc::dladdr(std::ptr::with_exposed_provenance(pc), &raw mut info) == 0 {
            return format!("0x{pc:016x}");
        }
        info
    };
    let text = |pointer: *const libc::c_char| {
        // SAFETY: the linker's texts end with NUL, and stay as long as the library.
        (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
    };
    let library = text(info.dli_fname).unwrap_or_default();
    let library = library.rsplit('/').next().unwrap_or_default();
    let offset = pc.wrapping_sub(info.dli_fbase.addr());
    match text(info.dli_sname) {
        Some(name) => format!("[{library}+0x{offset:x}]  {name}+0x{:x}", pc.wrapping_sub(info.dli_saddr.addr())),
        None => format!("[{library}+0x{offset:x}]"),
    }
}

/// SIGQUIT: asks for a thread dump.
pub const QUIT: i32 = libc::SIGQUIT;

/// What a signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// What the host does without being told.
    Default,
    /// Nothing.
    Ignore,
    /// It is told by [`next`].
    Tell,
}

/// The ends of the pipe from handlers to [`next`].
static PIPE: [AtomicI32; 2] = [const { AtomicI32::new(-1) }; 2];

/// Makes the pipe.
///
/// # Errors
/// If the host refuses.
pub fn open() -> io::Result<()> {
    let mut ends = [0; 2];
    // SAFETY: there is room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    PIPE[0].store(ends[0], Ordering::Release);
    PIPE[1].store(ends[1], Ordering::Release);
    Ok(())
}

extern "C" fn tell(number: i32) {
    let byte = u8::try_from(number).unwrap_or(0);
    // SAFETY: writes one byte; the call is allowed in handlers. The interrupted code finds its `errno` as it was.
    unsafe {
        let error = *libc::__errno_location();
        libc::write(PIPE[1].load(Ordering::Acquire), (&raw const byte).cast(), 1);
        *libc::__errno_location() = error;
    }
}

/// Waits for a signal that is told; none if there is no pipe.
pub fn next() -> Option<i32> {
    let mut byte = 0_u8;
    loop {
        // SAFETY: there is room for one byte.
        let count = unsafe { libc::read(PIPE[0].load(Ordering::Acquire), (&raw mut byte).cast(), 1) };
        match count {
            1 => return Some(i32::from(byte)),
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return None,
        }
    }
}

fn action(handler: usize) -> Action {
    match handler {
        libc::SIG_DFL => Action::Default,
        libc::SIG_IGN => Action::Ignore,
        _ => Action::Tell,
    }
}

/// Sets what a signal does; what it did.
///
/// # Errors
/// If the host refuses, as for SIGKILL.
pub fn set(number: i32, wanted: Action) -> io::Result<Action> {
    let handler = match wanted {
        Action::Default => libc::SIG_DFL,
        Action::Ignore => libc::SIG_IGN,
        Action::Tell => tell as *const () as usize,
    };
    install(number, handler, libc::SA_RESTART).map(action)
}

/// What a signal does.
#[must_use]
pub fn get(number: i32) -> Action {
    // SAFETY: all zeroes are a valid value, and the call only writes it.
    let handler = unsafe {
        let mut now: libc::sigaction = MaybeUninit::zeroed().assume_init();
        libc::sigaction(number, std::ptr::null(), &raw mut now);
        now.sa_sigaction
    };
    action(handler)
}

/// Whether it means a crash.
#[must_use]
pub fn is_crash(number: i32) -> bool {
    matches!(number, libc::SIGSEGV | libc::SIGFPE | libc::SIGILL)
}

/// Whether it asks the process to end.
#[must_use]
pub fn is_shutdown(number: i32) -> bool {
    matches!(number, libc::SIGHUP | libc::SIGINT | libc::SIGTERM)
}

/// Sends a signal to this process.
pub fn raise(number: i32) {
    // SAFETY: takes numbers; the handlers are those of this file, or the host's.
    unsafe { libc::kill(libc::getpid(), number) };
}

const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("POLL", libc::SIGPOLL),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The number of a signal, by its name without `SIG`.
#[must_use]
pub fn by_name(name: &str) -> Option<i32> {
    NAMES.iter().find(|(known, _)| *known == name).map(|&(_, number)| number)
}
