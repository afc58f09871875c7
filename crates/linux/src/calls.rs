//! The system calls: by number, to whoever answers.
//!
//! Most are in [`direct`]'s table. Here are those of which the machine itself must know, by the module that does: mappings, signals,
//! threads, processes, and structures that differ.

use crate::process::{Outcome, Thread};
use crate::signal::action::Action;
use crate::signal::deliver::Delivery;
use crate::signal::frame::AlternateStack;
use crate::signal::host::{SYNCHRONOUS, bit, call as interruptible};
use crate::sys::raw;
use crate::sys::{EINVAL, low};
use crate::{direct, event, exec, files, hwprobe, net, thread, time};

const ENOSYS: i64 = -(libc::ENOSYS as i64);

/// Answers the system call that the thread's registers describe.
pub fn call(thread: &mut Thread) -> Outcome {
    let number = thread.hart.x(17);
    let arguments: [u64; 6] = std::array::from_fn(|at| thread.hart.x(10 + at.to_le_bytes()[0]));
    if thread.process.call_log.is_none() {
        return answer(thread, number, arguments);
    }
    let process = thread.process.clone();
    let told = process.call_log.as_ref().map(|log| (log, log.enter(&process.space, number, arguments)));
    let outcome = answer(thread, number, arguments);
    if let Some((log, told)) = told {
        match outcome {
            Outcome::Answer(answer) => log.leave(&process.space, told, Some(answer)),
            Outcome::Restored | Outcome::Dies(_) => log.leave(&process.space, told, None),
            // Told before.
            Outcome::ThreadEnds(_) | Outcome::ProcessEnds(_) => {}
        }
    }
    outcome
}

fn answer(thread: &mut Thread, number: u64, arguments: [u64; 6]) -> Outcome {
    if let Some(direct) = direct::find(number) {
        let process = &thread.process;
        return Outcome::Answer(direct.call(
            thread.signals.mailbox(),
            &process.space,
            process.sysroot.as_deref(),
            arguments,
        ));
    }
    match special(thread, number, arguments) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Answer(error),
    }
}

fn special(thread: &mut Thread, number: u64, arguments: [u64; 6]) -> Result<Outcome, i64> {
    let [a, b, c, d, e, f] = arguments;
    let process = thread.process.clone();
    let space = &process.space;
    let done = |()| 0;
    let address = |at: u64| at.cast_signed();
    Ok(Outcome::Answer(match number {
        // Files.
        25 => files::fcntl(thread, arguments)?,
        29 => files::ioctl(thread, arguments)?,
        56 => files::openat(thread, arguments)?,
        65 | 66 | 69 | 70 | 286 | 287 | 75 => files::vectored(thread, number, arguments)?,
        78 => files::readlinkat(thread, arguments)?,
        79 | 80 => files::stat(thread, number, arguments)?,
        160 => files::uname(thread, a)?,
        // Events.
        21 => event::epoll_ctl(space, arguments)?,
        22 | 441 => event::epoll_wait(space, &mut thread.signals, number, arguments)?,
        72 => event::pselect(space, &mut thread.signals, arguments)?,
        73 => event::ppoll(space, &mut thread.signals, arguments)?,
        74 => event::signalfd(space, arguments)?,
        // Sockets.
        208 => net::set_option(space, arguments)?,
        211 | 212 => net::message(space, thread.signals.mailbox(), number, arguments)?,
        243 | 269 => net::messages(space, thread.signals.mailbox(), number, arguments)?,
        // Time.
        113 => time::clock_gettime(space, a, b)?,
        169 => time::gettimeofday(space, a, b)?,
        // Memory.
        214 => address(space.set_break(a)),
        215 => space.unmap(a, b).map(done)?,
        216 => address(space.remap(a, b, c, d, e)?),
        222 => address(space.map(a, b, low(c), d & 0xffff_ffff, e, f)?),
        226 => space.protect(a, b, low(c)).map(done)?,
        196 => address(space.attach(a, b, c)?),
        197 => space.detach(a).map(done)?,
        191 => thread::semctl(space, arguments)?,
        258 => hwprobe::riscv_hwprobe(space, arguments)?,
        259 => {
            space.flush_code(a, b);
            0
        }
        // Signals.
        132 => {
            let sp = thread.hart.x(2);
            let old = thread.signals.stack().seen_from(sp);
            if a != 0 {
                thread.signals.set_stack(AlternateStack::parse(&space.read(a)?), sp)?;
            }
            if b != 0 {
                space.write(b, &old.to_bytes())?;
            }
            0
        }
        133 if b == 8 => {
            let mask = space.read_u64(a)? & !(bit(9) | bit(19));
            let host = mask & !SYNCHRONOUS;
            // SAFETY: the kernel reads eight bytes.
            unsafe {
                thread.signals.call_with_mask(
                    Some(mask),
                    libc::SYS_rt_sigsuspend,
                    [(&raw const host) as u64, 8, 0, 0, 0, 0],
                )
            }
        }
        134 if d == 8 => {
            let new = if b == 0 { None } else { Some(Action::parse(&space.read(b)?)) };
            let old = process.actions.exchange(low(a), new)?;
            if c != 0 {
                space.write(c, &old.to_bytes())?;
            }
            0
        }
        135 if d == 8 => {
            let old = thread.signals.mask();
            if b != 0 {
                thread.signals.change_mask(a, space.read_u64(b)?)?;
            }
            if c != 0 {
                space.write(c, &old.to_le_bytes())?;
            }
            0
        }
        137 if d == 8 => {
            let set = space.read_u64(a)? & !SYNCHRONOUS;
            let arguments = [(&raw const set) as u64, space.pointer(b)?, space.pointer(c)?, 8, 0, 0];
            // SAFETY: the kernel reads the set, and guest memory.
            unsafe { interruptible(thread.signals.mailbox(), libc::SYS_rt_sigtimedwait, arguments) }
        }
        139 => {
            return Ok(match thread.signals.restore(&mut thread.hart, space) {
                Delivery::Continue => Outcome::Restored,
                Delivery::Die(signal) => Outcome::Dies(signal),
            });
        }
        // Threads and processes.
        93 => return Ok(Outcome::ThreadEnds(low(a).cast_signed())),
        94 => return Ok(Outcome::ProcessEnds(low(a).cast_signed())),
        96 => {
            thread.clear_at_end = a;
            // SAFETY: has no arguments.
            unsafe { raw(libc::SYS_gettid, [0; 6]) }
        }
        98 => thread::futex(thread, arguments)?,
        99 if b == 24 => {
            thread.robust = a;
            0
        }
        167 => thread::prctl(thread, arguments)?,
        220 => return thread::clone(thread, arguments),
        435 => return thread::clone3(thread, a, b),
        449 => thread::futex_waitv(thread, arguments)?,
        221 => exec::execve(thread, libc::AT_FDCWD as u64, a, b, c, 0)?,
        281 => exec::execve(thread, a, b, c, d, e)?,
        133..=135 | 137 | 99 => EINVAL,
        _ => ENOSYS,
    }))
}
