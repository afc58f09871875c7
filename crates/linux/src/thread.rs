//! Threads and their words in memory: `clone`, `futex`, robust lists, and what happens at the end.
//!
//! | what a program asks for | what it gets |
//! |---|---|
//! | `CLONE_VM`, `CLONE_SIGHAND`, `CLONE_THREAD` | a host thread with a hart of its own |
//! | `CLONE_VM`, `CLONE_VFORK` | a host process that shares all memory, on a host stack of its own; the caller waits in the kernel |
//! | neither | a fork |
//!
//! A new thread is born with all signals blocked, and gets its mask once its mailbox is there to record them.
//!
//! Futexes are the host's: the words are in host memory. Two things the host's kernel cannot do at a thread's end, since it knows only the
//! host's own: the word that `set_tid_address` named, and the robust list, whose links are guest addresses.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use crate::process::{Ended, Outcome, Process, Thread, new_cache};
use crate::signal::host::{call, set_host_mask};
use crate::space::AddressSpace;
use crate::sys::{EINVAL, low};
use crate::sys::{raw, vfork};

const CLONE_VM: u64 = libc::CLONE_VM as u64;
const CLONE_VFORK: u64 = libc::CLONE_VFORK as u64;
const CLONE_THREAD: u64 = libc::CLONE_THREAD as u64;
const CLONE_SIGHAND: u64 = libc::CLONE_SIGHAND as u64;
const CLONE_SETTLS: u64 = libc::CLONE_SETTLS as u64;
const CLONE_PARENT_SETTID: u64 = libc::CLONE_PARENT_SETTID as u64;
const CLONE_CHILD_SETTID: u64 = libc::CLONE_CHILD_SETTID as u64;
const CLONE_CHILD_CLEARTID: u64 = libc::CLONE_CHILD_CLEARTID as u64;
const CLONE_PIDFD: u64 = libc::CLONE_PIDFD as u64;
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
/// What a fork may ask for, besides words to set.
const FORK_FLAGS: u64 =
    CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | CLONE_PIDFD | CLONE_CLEAR_SIGHAND;

/// Bytes of the host stack of a process that borrows memory.
const BORROWED_STACK: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, Default)]
struct Birth {
    flags: u64,
    exit_signal: u64,
    /// Its stack pointer, or 0 for the parent's.
    stack: u64,
    tls: u64,
    parent_word: u64,
    child_word: u64,
    descriptor_word: u64,
}

fn own_id() -> i64 {
    // SAFETY: has no arguments.
    unsafe { raw(libc::SYS_gettid, [0; 6]) }
}

fn write_id(space: &AddressSpace, wanted: bool, at: u64, id: i64) {
    if wanted {
        // As in the kernel, where nobody is told either.
        let _ = space.write(at, &id.to_le_bytes()[..4]);
    }
}

/// `clone(flags, stack, parent_word, tls, child_word)`.
pub(crate) fn clone(
    thread: &mut Thread,
    [flags, stack, parent_word, tls, child_word, _]: [u64; 6],
) -> Result<Outcome, i64> {
    let birth = Birth {
        flags: flags & 0xffff_ff00,
        exit_signal: flags & 0xff,
        stack,
        tls,
        parent_word,
        child_word,
        descriptor_word: parent_word,
    };
    give_birth(thread, birth)
}

/// `clone3(arguments, size)`.
pub(crate) fn clone3(thread: &mut Thread, at: u64, size: u64) -> Result<Outcome, i64> {
    if size < 64 {
        return Err(EINVAL);
    }
    let space = &thread.process.space;
    let field = |number: u64| space.read_u64(at.wrapping_add(8 * number));
    let (stack, stack_size) = (field(5)?, field(6)?);
    if (stack == 0) != (stack_size == 0) || (size >= 80 && field(9)? != 0) {
        return Err(EINVAL);
    }
    let birth = Birth {
        flags: field(0)?,
        descriptor_word: field(1)?,
        child_word: field(2)?,
        parent_word: field(3)?,
        exit_signal: field(4)?,
        stack: stack.wrapping_add(stack_size),
        tls: field(7)?,
    };
    give_birth(thread, birth)
}

fn give_birth(thread: &mut Thread, birth: Birth) -> Result<Outcome, i64> {
    let sharing = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD;
    let answer = if birth.flags & sharing == sharing {
        new_thread(thread, birth)?
    } else if birth.flags & (CLONE_VM | CLONE_THREAD) == CLONE_VM && birth.flags & CLONE_VFORK != 0 {
        borrow(thread, birth)?
    } else if birth.flags & !(FORK_FLAGS | CLONE_VFORK) == 0 && [0, libc::SIGCHLD as u64].contains(&birth.exit_signal) {
        fork(thread, birth)?
    } else {
        return Err(EINVAL);
    };
    Ok(Outcome::Answer(answer))
}

/// A hart for the child of `thread`: as the parent's, past the call, with 0 as its answer.
fn child_hart(thread: &Thread, birth: Birth) -> Result<riscv::hart::Hart, i64> {
    let mut hart = thread.new_hart().map_err(|_| -i64::from(libc::EAGAIN))?;
    prepare(&mut hart, birth);
    Ok(hart)
}

fn prepare(hart: &mut riscv::hart::Hart, birth: Birth) {
    hart.set_x(10, 0);
    if birth.stack != 0 {
        hart.set_x(2, birth.stack);
    }
    if birth.flags & CLONE_SETTLS != 0 {
        hart.set_x(4, birth.tls);
    }
}

fn new_thread(thread: &mut Thread, birth: Birth) -> Result<i64, i64> {
    let process = Arc::clone(&thread.process);
    let mut child = Thread::new(child_hart(thread, birth)?, Arc::clone(&process), thread.signals.mask());
    if birth.flags & CLONE_CHILD_CLEARTID != 0 {
        child.clear_at_end = birth.child_word;
    }
    process.threads_count.fetch_add(1, Ordering::SeqCst);
    // The child inherits the host's mask, and must catch nothing before it can record.
    set_host_mask(u64::MAX);
    let (sender, receiver) = sync_channel(1);
    let spawned = std::thread::Builder::new().spawn(move || {
        let id = own_id();
        let space = &child.process.space;
        write_id(space, birth.flags & CLONE_PARENT_SETTID != 0, birth.parent_word, id);
        write_id(space, birth.flags & CLONE_CHILD_SETTID != 0, birth.child_word, id);
        // The parent waits for just this.
        let _ = sender.send(id);
        let ended = child.run();
        finish(child, ended);
    });
    let answer = match spawned {
        Ok(_) => receiver.recv().map_err(|_| -i64::from(libc::EAGAIN)),
        Err(_) => {
            process.threads_count.fetch_sub(1, Ordering::SeqCst);
            Err(-i64::from(libc::EAGAIN))
        }
    };
    thread.signals.set_mask(thread.signals.mask());
    answer
}

/// A thread has ended. Returns if the process goes on, and the host's thread is then to end.
pub fn finish(thread: Thread, ended: Ended) {
    let Ended::Thread(_) = ended else { Process::end(ended) };
    leave_words(&thread);
    if thread.process.thread_ends() {
        Process::end(ended);
    }
}

/// What the rest of the process waits for at a thread's end.
pub fn leave_words(thread: &Thread) {
    let space = &thread.process.space;
    if thread.robust != 0 {
        leave_robust_list(space, thread.robust);
    }
    if thread.clear_at_end != 0 && space.write(thread.clear_at_end, &[0; 4]).is_ok() {
        wake_one(space, thread.clear_at_end);
    }
}

fn wake_one(space: &AddressSpace, at: u64) {
    if let Some(host) = space.translate(at) {
        // SAFETY: the kernel looks for waiters by the address.
        unsafe { raw(libc::SYS_futex, [host, libc::FUTEX_WAKE as u64, 1, 0, 0, 0]) };
    }
}

/// `ROBUST_LIST_LIMIT`.
const ROBUST_MAX: usize = 2048;

/// Marks the futexes that a dying thread holds: `struct robust_list_head { next, offset, pending }`. Bit 0 of a link says that
/// the futex inherits priorities, which the kernel then knows of itself.
fn leave_robust_list(space: &AddressSpace, head: u64) {
    let read = |number: u64| space.read_u64(head.wrapping_add(8 * number));
    let (Ok(mut link), Ok(offset), Ok(pending)) = (read(0), read(1), read(2)) else { return };
    let futex = |link: u64| (link & !1).wrapping_add(offset);
    for _ in 0..ROBUST_MAX {
        if link & !1 == head {
            break;
        }
        let next = space.read_u64(link & !1);
        if link & !1 != pending & !1 {
            owner_died(space, futex(link), link & 1 != 0, false);
        }
        let Ok(next) = next else { return };
        link = next;
    }
    if pending & !1 != 0 {
        owner_died(space, futex(pending), pending & 1 != 0, true);
    }
}

fn owner_died(space: &AddressSpace, at: u64, inherits: bool, pending: bool) {
    let wanted = crate::space::WRITE;
    if !at.is_multiple_of(4) || space.protection(at).is_none_or(|rights| rights & wanted == 0) {
        return;
    }
    let Some(host) = space.translate(at) else { return };
    // SAFETY: aligned, and mapped for writing a moment ago. A program that unmaps its own locks meanwhile gets its SIGSEGV.
    let word = unsafe { AtomicU32::from_ptr(host as *mut u32) };
    let died = word.try_update(Ordering::SeqCst, Ordering::SeqCst, |value| {
        let owned = value & libc::FUTEX_TID_MASK == low(own_id().cast_unsigned());
        owned.then_some(value & libc::FUTEX_WAITERS | libc::FUTEX_OWNER_DIED)
    });
    match died {
        Ok(value) if !inherits && value & libc::FUTEX_WAITERS != 0 => wake_one(space, at),
        // Unlocked, but the wake-up was still to come.
        Err(value) if pending && !inherits && value & libc::FUTEX_TID_MASK == 0 => wake_one(space, at),
        _ => {}
    }
}

/// A process that runs in this one's memory until it executes another program or ends. All else of the process is its own: the
/// table of signals, descriptors, the number.
fn borrow(thread: &mut Thread, birth: Birth) -> Result<i64, i64> {
    let hart = child_hart(thread, birth)?;
    let parent = &thread.process;
    let process = Process {
        space: Arc::clone(&parent.space),
        actions: parent.actions.copy(),
        program: parent.program.clone(),
        command_line: Arc::clone(&parent.command_line),
        auxiliary: Arc::clone(&parent.auxiliary),
        sysroot: parent.sysroot.clone(),
        sigreturn: parent.sigreturn,
        time: Arc::clone(&parent.time),
        options: parent.options,
        call_log: parent.call_log.clone(),
        code: Mutex::new(parent.code().clone()),
        calls: parent.calls,
        threads_count: AtomicU32::new(1),
        debug: None,
        tracer: None,
        counts: None,
        at_end: None,
        hold: Arc::default(),
    };
    let mut child = Thread::new(hart, Arc::new(process), thread.signals.mask());
    child.borrows_memory = true;
    let signals = Arc::clone(child.hart.signals());
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as u64;
    // SAFETY: a new mapping.
    let stack = unsafe { raw(libc::SYS_mmap, [0, BORROWED_STACK, 3, flags, u64::MAX, 0]) };
    if stack < 0 {
        parent.space.remove_hart(&signals);
        return Err(stack);
    }
    let stack = stack.unsigned_abs();
    let mut start = (child, birth);
    set_host_mask(u64::MAX);
    // SAFETY: the stack is the child's alone; what it gets lives until it is done, since this thread stands still meanwhile.
    let answer = unsafe { vfork(birth.exit_signal, borrowed, (&raw mut start).cast(), stack + BORROWED_STACK) };
    // The child has used this thread's place for its mailbox.
    thread.signals.attach();
    thread.process.space.remove_hart(&signals);
    // SAFETY: the child has left it.
    unsafe { raw(libc::SYS_munmap, [stack, BORROWED_STACK, 0, 0, 0, 0]) };
    if answer > 0 {
        let space = &thread.process.space;
        write_id(space, birth.flags & CLONE_PARENT_SETTID != 0, birth.parent_word, answer);
        descriptor(space, birth, answer)?;
    }
    Ok(answer)
}

extern "C" fn borrowed(start: *mut libc::c_void) -> ! {
    // SAFETY: `borrow` passes a pointer to these, and waits.
    let (thread, birth) = unsafe { &mut *start.cast::<(Thread, Birth)>() };
    write_id(&thread.process.space, birth.flags & CLONE_CHILD_SETTID != 0, birth.child_word, own_id());
    if birth.flags & CLONE_CLEAR_SIGHAND != 0 {
        thread.process.actions.clear();
    }
    Process::end(thread.run())
}

/// `CLONE_PIDFD`.
fn descriptor(space: &AddressSpace, birth: Birth, child: i64) -> Result<(), i64> {
    if birth.flags & CLONE_PIDFD == 0 {
        return Ok(());
    }
    // SAFETY: takes numbers.
    let file = unsafe { raw(libc::SYS_pidfd_open, [child.cast_unsigned(), 0, 0, 0, 0, 0]) };
    if file < 0 { Err(file) } else { space.write(birth.descriptor_word, &file.to_le_bytes()[..4]) }
}

fn fork(thread: &mut Thread, birth: Birth) -> Result<i64, i64> {
    let process = Arc::clone(&thread.process);
    set_host_mask(u64::MAX);
    let answer = {
        let _actions = process.actions.lock();
        let _code = process.code();
        // SAFETY: the locks of the machine are this thread's, in the child as well; the C library sees to its own.
        process.space.while_still(|| unsafe { libc::fork() })
    };
    if answer == 0 {
        process.threads_count.store(1, Ordering::SeqCst);
        // Who holds and looks at the parent does not hold and look at the child.
        process.hold.leave();
        thread.hart.set_tracer(None);
        if let Some(control) = &process.debug {
            control.forget(&mut thread.hart);
        }
        process.space.keep_hart(thread.hart.signals());
        // The parent's translations are in memory that both could write.
        let code = new_cache(process.options);
        thread.hart.translate_after_fork(code.clone());
        std::mem::forget(process.code().take());
        thread.signals.mailbox().set_code(code.as_ref());
        *process.code() = code;
        prepare(&mut thread.hart, birth);
        thread.robust = 0;
        thread.clear_at_end = if birth.flags & CLONE_CHILD_CLEARTID != 0 { birth.child_word } else { 0 };
        write_id(&process.space, birth.flags & CLONE_CHILD_SETTID != 0, birth.child_word, own_id());
        if birth.flags & CLONE_CLEAR_SIGHAND != 0 {
            process.actions.clear();
        }
    }
    thread.signals.set_mask(thread.signals.mask());
    if answer < 0 {
        return Err(-i64::from(libc::EAGAIN));
    }
    if answer > 0 {
        write_id(&process.space, birth.flags & CLONE_PARENT_SETTID != 0, birth.parent_word, answer.into());
        descriptor(&process.space, birth, answer.into())?;
    }
    Ok(answer.into())
}

/// `futex(word, operation, value, timeout or value, second word, value)`.
pub(crate) fn futex(thread: &Thread, [word, operation, value, fourth, second, last]: [u64; 6]) -> Result<i64, i64> {
    let space = &thread.process.space;
    let timed = [
        libc::FUTEX_WAIT,
        libc::FUTEX_LOCK_PI,
        libc::FUTEX_WAIT_BITSET,
        libc::FUTEX_WAIT_REQUEUE_PI,
        libc::FUTEX_LOCK_PI2,
    ]
    .contains(&(low(operation) & 0x7f).cast_signed());
    let fourth = if timed { space.pointer(fourth)? } else { fourth };
    let arguments = [space.pointer(word)?, operation, value, fourth, space.pointer(second)?, last];
    // SAFETY: the kernel reads and writes guest memory.
    Ok(unsafe {
        if timed { call(thread.signals.mailbox(), libc::SYS_futex, arguments) } else { raw(libc::SYS_futex, arguments) }
    })
}

/// `futex_waitv(waiters, count, flags, timeout, clock)`.
pub(crate) fn futex_waitv(thread: &Thread, [at, count, flags, timeout, clock, _]: [u64; 6]) -> Result<i64, i64> {
    let space = &thread.process.space;
    if count == 0 || count > 128 {
        return Err(EINVAL);
    }
    let mut waiters = Vec::new();
    for number in 0..count {
        let field = |field: u64| space.read_u64(at.wrapping_add(24 * number + 8 * field));
        waiters.extend([field(0)?, space.pointer(field(1)?)?, field(2)?]);
    }
    let arguments = [waiters.as_ptr() as u64, count, flags, space.pointer(timeout)?, clock, 0];
    // SAFETY: the kernel reads the waiters, and guest memory.
    Ok(unsafe { call(thread.signals.mailbox(), libc::SYS_futex_waitv, arguments) })
}

/// `prctl`: what concerns names, privileges and parents; the rest is the host processor's.
pub(crate) fn prctl(thread: &Thread, [option, mut second, third, fourth, fifth, _]: [u64; 6]) -> Result<i64, i64> {
    match low(option) {
        // PDEATHSIG, DUMPABLE, KEEPCAPS, CAPBSET, SECUREBITS, TIMERSLACK, NO_NEW_PRIVS, THP_DISABLE, CAP_AMBIENT, SUBREAPER.
        1 | 3 | 4 | 7 | 8 | 23 | 24 | 27..=30 | 36 | 38 | 39 | 41 | 42 | 47 => {}
        // GET_PDEATHSIG, SET_NAME, GET_NAME, GET_CHILD_SUBREAPER.
        2 | 15 | 16 | 37 => second = thread.process.space.pointer(second)?,
        _ => return Err(EINVAL),
    }
    // SAFETY: the kernel reads and writes guest memory, or takes numbers.
    Ok(unsafe { raw(libc::SYS_prctl, [option, second, third, fourth, fifth, 0]) })
}

/// Bytes of x86-64's `struct semid64_ds`, which has unused fields after each time, and of the generic one.
const SEMAPHORES_HOST: usize = 104;
const SEMAPHORES: usize = 88;

/// `semctl(set, number, command, argument)`.
pub(crate) fn semctl(space: &AddressSpace, [set, number, command, argument, ..]: [u64; 6]) -> Result<i64, i64> {
    let mut host = [0_u8; SEMAPHORES_HOST];
    let (stat, is_set) = (matches!(low(command) & 0xff, 2 | 18 | 20), low(command) & 0xff == 1);
    if is_set {
        let guest = space.read::<SEMAPHORES>(argument)?;
        host[..48].copy_from_slice(&guest[..48]);
    }
    let value = match low(command) & 0xff {
        1 | 2 | 18 | 20 => host.as_mut_ptr() as u64,
        3 | 13 | 17 | 19 => space.pointer(argument)?,
        _ => argument,
    };
    // SAFETY: the kernel reads or writes one structure, or guest memory.
    let answer = unsafe { raw(libc::SYS_semctl, [set, number, command, value, 0, 0]) };
    if stat && answer >= 0 {
        let mut guest = [0; SEMAPHORES];
        guest[..56].copy_from_slice(&host[..56]);
        guest[56..64].copy_from_slice(&host[64..72]);
        guest[64..72].copy_from_slice(&host[80..88]);
        space.write(argument, &guest)?;
    }
    Ok(answer)
}
