//! What is said when C code crashes: the signal, where, and which Java frames were there. Then the process ends as if aborted.

use std::io::Write as _;

use crate::dump::frame_text;
use crate::services::signals::{self, Crash};
use crate::thread::Thread;

/// Says what happens from now on if the process crashes.
///
/// # Errors
/// If the host refuses the handlers.
pub fn report_crashes() -> std::io::Result<()> {
    signals::on_lost_memory(Thread::note_fault);
    signals::on_crash(report)
}

/// Runs in the handler of the signal, after which nothing runs any more.
fn report(crash: &Crash) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "#\n# A fatal error has been detected by the Java virtual machine:\n#");
    let Crash { name, number, pc, process, thread, .. } = crash;
    let _ = writeln!(out, "#  {name} (0x{number:x}) at pc=0x{pc:016x}, pid={process}, tid={thread}\n#");
    let _ = writeln!(out, "# Java VM: Isomorph (build {}, interpreted mode)", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(out, "# Problematic frame:\n# C  {}\n#", crash.place);
    if let Some(address) = crash.address {
        let _ = writeln!(out, "# It accessed the address 0x{address:016x}\n#");
    }
    let _ = out.flush();
    if Thread::is_attached() {
        // SAFETY: the code that crashed does not go on.
        let thread = unsafe { Thread::current() };
        let _ = writeln!(out, "Java frames:");
        for frame in thread.frames().take(64) {
            let _ = writeln!(out, "\tat {}", frame_text(frame));
        }
    }
    let _ = out.flush();
}
