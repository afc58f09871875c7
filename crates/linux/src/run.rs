//! Running a program: this process becomes it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use riscv::hart::debug::Tracer;
use riscv::hart::{Hart, HartSignals, TimeSource};

use crate::debug::Control;
use crate::hold::{Hold, Holder};
use crate::process::{AtEnd, Counts, Ended, HostTime, Process, Thread, new_cache};
use crate::signal::action::Actions;
use crate::signal::host::{
    Disposition, FAULTS, SYNCHRONOUS, bit, host_mask, is_ignored, set_disposition, set_host_mask,
};
use crate::space::AddressSpace;
use crate::start::{Program, StartError, start};
use crate::sys::raw;
use crate::thread::leave_words;

const SIGPIPE: u32 = 13;

/// Whether this process was started with SIGPIPE ignored. The runtime ignores it before `main`, so it is asked earlier.
static PIPE_IGNORED: AtomicBool = AtomicBool::new(false);

#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_PIPE: extern "C" fn() = look_at_pipe;

extern "C" fn look_at_pipe() {
    PIPE_IGNORED.store(is_ignored(SIGPIPE), Ordering::Relaxed);
}

/// Lets debuggers come, before the first instruction. Threads that it starts take no signals.
pub type Attach<'a> = &'a dyn Fn(Arc<Control>) -> std::io::Result<()>;

/// Begins to control the program from outside, before the first instruction. Threads that it starts take no signals.
pub type Attend<'a> = &'a dyn Fn(Holder) -> std::io::Result<()>;

/// How to see into a program.
#[derive(Default)]
pub struct Seeing<'a> {
    /// A debugger may come.
    pub attach: Option<Attach<'a>>,
    /// It may be held from outside.
    pub control: Option<Attend<'a>>,
    /// Sees every instruction.
    pub tracer: Option<Arc<dyn Tracer>>,
    /// Whether to count what it does.
    pub counts: bool,
    /// Called when it ends by itself, or by a fault.
    pub at_end: Option<AtEnd>,
}

/// Runs `program`, and ends this process as it ends. Comes back only with an error.
///
/// # Errors
/// See [`StartError`].
pub fn run(program: Program, environment: &[OsString], seeing: Seeing<'_>) -> Result<Infallible, StartError> {
    for signal in (1..=64).filter(|signal| bit(*signal) & SYNCHRONOUS != 0) {
        let is_ours = bit(signal) & FAULTS != 0;
        let disposition = if is_ours { Disposition::Record { flags: 0 } } else { Disposition::Default };
        // The runtime's own; these numbers are signals.
        let _ = set_disposition(signal, disposition);
    }
    if !PIPE_IGNORED.load(Ordering::Relaxed) {
        let _ = set_disposition(SIGPIPE, Disposition::Default);
    }
    let host = |what| move |cause| StartError::Host { what, cause };
    let space =
        Arc::new(AddressSpace::new().map_err(host("an address space of 256 GiB; is its size limited (ulimit -v)?"))?);
    let started = start(&program, environment, &space)?;
    let time = Arc::new(HostTime::new());
    let (memory, clock) = (Arc::clone(&space), Arc::clone(&time));
    let mut hart = Hart::user(memory, clock, Arc::new(HartSignals::new()))
        .map_err(|error| StartError::Host { what: "memory for a hart", cause: std::io::Error::other(error) })?;
    let code = new_cache(program.options);
    if let Some(cache) = &code {
        hart.translate_with(Arc::clone(cache));
    }
    hart.set_pc(started.pc);
    hart.set_x(2, started.sp);
    // As a debugger shows it.
    let name = program.path.file_name().map(|name| name.to_string_lossy().replace('\0', "")).unwrap_or_default();
    if let Ok(name) = std::ffi::CString::new(name) {
        // SAFETY: the kernel reads the string.
        unsafe { raw(libc::SYS_prctl, [libc::PR_SET_NAME as u64, name.as_ptr() as u64, 0, 0, 0, 0]) };
    }
    let zero_ended = |text: &OsString| [text.as_bytes(), &[0]].concat();
    let command_line = program.arguments.iter().flat_map(zero_ended).collect();
    let path = std::path::absolute(&program.path).unwrap_or(program.path);
    let debug = match seeing.attach {
        None => None,
        Some(attach) => {
            let control = Arc::new(Control::new(
                Arc::clone(&space),
                Arc::clone(&time) as _,
                path.clone(),
                started.auxiliary.clone(),
            ));
            let mask = host_mask();
            set_host_mask(u64::MAX);
            let attached = attach(Arc::clone(&control));
            set_host_mask(mask);
            attached.map_err(host("a debugger"))?;
            Some(control)
        }
    };
    let hold = Arc::new(Hold::default());
    if let Some(attend) = seeing.control {
        let mask = host_mask();
        set_host_mask(u64::MAX);
        let attended = attend(Holder::new(Arc::clone(&hold), Arc::clone(&space)));
        set_host_mask(mask);
        attended.map_err(StartError::Control)?;
    }
    let counts = seeing.counts.then(|| Counts::new(time.ticks()));
    let process = Process {
        space,
        actions: Actions::inherited(),
        program: path,
        command_line,
        auxiliary: started.auxiliary.into(),
        sysroot: program.sysroot,
        options: program.options,
        call_log: program.call_log,
        sigreturn: started.sigreturn,
        time,
        code: Mutex::new(code),
        calls: crate::calls::call,
        threads_count: AtomicU32::new(1),
        debug,
        tracer: seeing.tracer,
        counts,
        at_end: seeing.at_end,
        hold,
    };
    let mut thread = Thread::new(hart, Arc::new(process), host_mask());
    let ended = thread.run();
    if let Ended::Thread(status) = ended {
        leave_words(&thread);
        if !thread.process.thread_ends() {
            // The others go on; the process stays until the last of them ends it.
            // SAFETY: ends this thread, whose stack the rest of the process does not use.
            unsafe { raw(libc::SYS_exit, [status.cast_unsigned().into(), 0, 0, 0, 0, 0]) };
        }
    }
    Process::end(ended)
}
