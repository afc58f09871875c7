//! From a recorded signal, or a fault, to the guest's handler and back.
//!
//! Everything happens between two runs of the hart, where its registers are exact: the frame that the handler gets is the state before
//! the next instruction, or of the one that faulted.

use std::sync::Arc;

use riscv::hart::csr::number::FCSR;
use riscv::hart::{Hart, HartSignals};

use super::action::{Action, Actions, DEFAULT, SA_NODEFER, SA_ONSTACK, SA_RESTART};
use super::frame::{
    AlternateStack, Context, FRAME_SIZE, SIGINFO_SIZE, SS_AUTODISARM, SS_DISABLE, STACK_SIZE_MIN, UCONTEXT, place,
};
use super::host::{Disposition, Mailbox, SYNCHRONOUS, SignalInfo, bit, set_disposition, set_host_mask};
use crate::space::AddressSpace;
use crate::sys::{RESTART, raw};

/// SIGILL.
pub const SIGILL: u32 = 4;
/// SIGTRAP.
pub const SIGTRAP: u32 = 5;
/// SIGBUS.
pub const SIGBUS: u32 = 7;
/// SIGSEGV.
pub const SIGSEGV: u32 = 11;

/// `SEGV_MAPERR`: nothing is mapped there.
pub const SEGV_MAPERR: i32 = 1;
/// `SEGV_ACCERR`: something is, with other rights.
pub const SEGV_ACCERR: i32 = 2;
/// `BUS_ADRALN`.
pub const BUS_ADRALN: i32 = 1;
/// `BUS_ADRERR`: past the end of a mapped file.
pub const BUS_ADRERR: i32 = 2;
/// `ILL_ILLOPC`.
pub const ILL_ILLOPC: i32 = 1;
/// `TRAP_BRKPT`.
pub const TRAP_BRKPT: i32 = 1;

/// A fault of an instruction, as `siginfo` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// SIGSEGV, SIGBUS, SIGILL or SIGTRAP.
    pub signal: u32,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`.
    pub address: u64,
}

impl Fault {
    fn info(&self) -> SignalInfo {
        let mut info = [0; SIGINFO_SIZE];
        info[..4].copy_from_slice(&self.signal.to_le_bytes());
        info[8..12].copy_from_slice(&self.code.to_le_bytes());
        info[16..24].copy_from_slice(&self.address.to_le_bytes());
        info
    }
}

/// How delivering ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Delivery {
    /// The hart goes on, maybe in a handler.
    Continue,
    /// The process dies of this signal: [`die`].
    Die(u32),
}

/// The system call that the hart is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingCall {
    /// The address of its `ecall`; the hart is past it.
    pub pc: u64,
    /// `a0` before it.
    pub first_argument: u64,
}

/// The signals of one thread.
#[derive(Debug)]
pub struct ThreadSignals {
    /// Boxed, since the handler knows its address.
    mailbox: Box<Mailbox>,
    stack: AlternateStack,
    /// The mask of a call that replaces the thread's for its own time: `rt_sigsuspend`, `ppoll` and their kin.
    temporary: Option<u64>,
}

impl ThreadSignals {
    /// Those of a new thread with this mask, and no alternate stack.
    #[must_use]
    pub fn new(hart: Arc<HartSignals>, mask: u64) -> Self {
        Self { mailbox: Box::new(Mailbox::new(hart, mask)), stack: AlternateStack::NONE, temporary: None }
    }

    /// Makes the calling host thread the one whose signals are recorded here, with the guest's mask. Give it back with [`Self::detach`].
    pub fn attach(&self) {
        // SAFETY: `detach` comes before the box is freed: whoever drops this without it has left the machine's loop by a panic, and
        // the process with it.
        unsafe { Mailbox::adopt(&raw const *self.mailbox) };
        self.mailbox.set_mask(self.mailbox.mask());
    }

    /// Blocks everything, and no longer records.
    pub fn detach(&self) {
        set_host_mask(u64::MAX);
        // SAFETY: none is always allowed.
        unsafe { Mailbox::adopt(std::ptr::null()) };
    }

    /// What interruptible calls look at.
    #[must_use]
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// The blocked signals.
    #[must_use]
    pub fn mask(&self) -> u64 {
        self.mailbox.mask()
    }

    /// Blocks others. `SIGKILL` and `SIGSTOP` cannot be.
    pub fn set_mask(&self, mask: u64) {
        self.mailbox.set_mask(mask & !(bit(9) | bit(19)));
    }

    /// `rt_sigprocmask`: `how` is 0 to block, 1 to unblock, 2 to set.
    ///
    /// # Errors
    /// `EINVAL`, negative.
    pub fn change_mask(&self, how: u64, set: u64) -> Result<(), i64> {
        let mask = match how {
            0 => self.mask() | set,
            1 => self.mask() & !set,
            2 => set,
            _ => return Err(-i64::from(libc::EINVAL)),
        };
        self.set_mask(mask);
        Ok(())
    }

    /// Makes a system call during which the kernel blocks `mask` instead: it is among `arguments` in the call's own form. Here it is remembered, since the
    /// handler of a signal that ends the call runs with it.
    ///
    /// # Safety
    /// As for the system call.
    pub unsafe fn call_with_mask(&mut self, mask: Option<u64>, number: i64, arguments: [u64; 6]) -> i64 {
        self.temporary = mask;
        // SAFETY: the caller's promise.
        let answer = unsafe { super::host::call(&self.mailbox, number, arguments) };
        if !self.mailbox.is_recorded() {
            self.temporary = None;
        }
        answer
    }

    /// The alternate stack.
    #[must_use]
    pub fn stack(&self) -> AlternateStack {
        self.stack
    }

    /// `sigaltstack` with a new stack, by a thread whose stack pointer is `sp`.
    ///
    /// # Errors
    /// `EPERM`, `EINVAL`, `ENOMEM`, negative.
    pub fn set_stack(&mut self, new: AlternateStack, sp: u64) -> Result<(), i64> {
        if self.stack.holds(sp) {
            return Err(-i64::from(libc::EPERM));
        }
        self.stack = match new.flags & !SS_AUTODISARM {
            SS_DISABLE => AlternateStack { flags: new.flags, ..AlternateStack::NONE },
            0 | super::frame::SS_ONSTACK if new.size < STACK_SIZE_MIN => return Err(-i64::from(libc::ENOMEM)),
            0 | super::frame::SS_ONSTACK => AlternateStack { flags: new.flags & SS_AUTODISARM, ..new },
            _ => return Err(-i64::from(libc::EINVAL)),
        };
        Ok(())
    }

    /// After a system call that answered `answer`, or at attention without one: what is recorded reaches its handlers. `a0` gets the answer, or
    /// the call is about to be repeated. A signal that `may_deliver` refuses is forgotten.
    pub fn deliver(
        &mut self,
        hart: &mut Hart,
        memory: &AddressSpace,
        actions: &Actions,
        trampoline: u64,
        call: Option<(PendingCall, i64)>,
        may_deliver: &mut dyn FnMut(&mut Hart, u32) -> bool,
    ) -> Delivery {
        let mut restart = None;
        if let Some((call, answer)) = call {
            if answer == RESTART {
                restart = Some(call);
            } else {
                hart.set_x(10, answer.cast_unsigned());
            }
        }
        while let Some((signal, info)) = self.mailbox.take() {
            if !may_deliver(hart, signal) {
                continue;
            }
            let action = actions.take(signal);
            if !action.is_caught() {
                // Changed since it was recorded, or a fault's signal, which the host always records.
                self.mailbox.set_mask(self.mask());
                if action.handler == DEFAULT {
                    if bit(signal) & SYNCHRONOUS != 0 {
                        return Delivery::Die(signal);
                    }
                    send_again(signal, &info);
                }
                continue;
            }
            if let Some(call) = restart.take() {
                if action.flags & SA_RESTART != 0 {
                    hart.set_pc(call.pc);
                    hart.set_x(10, call.first_argument);
                } else {
                    hart.set_x(10, i64::from(-libc::EINTR).cast_unsigned());
                }
            }
            if !self.enter_handler(hart, memory, trampoline, signal, &info, action) {
                return Delivery::Die(SIGSEGV);
            }
        }
        self.temporary = None;
        if let Some(call) = restart {
            hart.set_pc(call.pc);
            hart.set_x(10, call.first_argument);
        }
        Delivery::Continue
    }

    /// The instruction that the hart is at faults.
    pub fn fault(
        &mut self,
        hart: &mut Hart,
        memory: &AddressSpace,
        actions: &Actions,
        trampoline: u64,
        fault: Fault,
    ) -> Delivery {
        let action = actions.get(fault.signal);
        // What a program blocks or ignores and raises nevertheless kills it.
        if !action.is_caught() || self.mask() & bit(fault.signal) != 0 {
            return Delivery::Die(fault.signal);
        }
        let action = actions.take(fault.signal);
        if self.enter_handler(hart, memory, trampoline, fault.signal, &fault.info(), action) {
            Delivery::Continue
        } else {
            Delivery::Die(SIGSEGV)
        }
    }

    /// Puts the frame on the guest's stack and the hart into the handler. False if there is no room.
    fn enter_handler(
        &mut self,
        hart: &mut Hart,
        memory: &AddressSpace,
        trampoline: u64,
        signal: u32,
        info: &SignalInfo,
        action: Action,
    ) -> bool {
        let saved = self.mask();
        let context = Context {
            stack: self.stack.seen_from(hart.x(2)),
            mask: saved,
            pc: hart.pc(),
            x: std::array::from_fn(|number| hart.x(number.to_le_bytes()[0])),
            f: std::array::from_fn(|number| hart.f(number.to_le_bytes()[0])),
            fcsr: hart.csr(FCSR).and_then(|bits| u32::try_from(bits).ok()).unwrap_or(0),
        };
        let Some(at) = place(hart.x(2), &self.stack, action.flags & SA_ONSTACK != 0) else { return false };
        if !memory.copy_out(at, &context.to_frame(info)) {
            return false;
        }
        if self.stack.flags & SS_AUTODISARM != 0 && action.flags & SA_ONSTACK != 0 {
            self.stack = AlternateStack::NONE;
        }
        let own = if action.flags & SA_NODEFER == 0 { bit(signal) } else { 0 };
        let mask = self.temporary.take().unwrap_or(saved);
        self.set_mask(mask | action.mask | own);
        hart.set_x(1, trampoline);
        hart.set_x(2, at);
        hart.set_x(10, signal.into());
        hart.set_x(11, at);
        hart.set_x(12, at + UCONTEXT as u64);
        hart.set_pc(action.handler);
        true
    }

    /// `rt_sigreturn`: the hart becomes what the frame at its stack pointer says. The answer is no number for `a0`, which came from the frame.
    pub fn restore(&mut self, hart: &mut Hart, memory: &AddressSpace) -> Delivery {
        let mut frame = [0; FRAME_SIZE];
        if !memory.copy_in(hart.x(2), &mut frame) {
            return Delivery::Die(SIGSEGV);
        }
        let context = Context::from_frame(&frame);
        for number in 1..32_u8 {
            hart.set_x(number, context.x[usize::from(number)]);
        }
        for number in 0..32_u8 {
            hart.set_f(number, context.f[usize::from(number)]);
        }
        hart.set_csr(FCSR, context.fcsr.into());
        hart.set_pc(context.pc);
        // As the kernel does, errors are nobody's: the stack in the frame may be one that is in use.
        let stack = AlternateStack { flags: context.stack.flags & !super::frame::SS_ONSTACK, ..context.stack };
        let _ = self.set_stack(stack, context.x[2]);
        self.set_mask(context.mask);
        Delivery::Continue
    }
}

/// Sends the calling thread `signal` once more, now that the host does with it what the guest wants.
fn send_again(signal: u32, info: &SignalInfo) {
    // SAFETY: the kernel reads the information and writes nothing.
    unsafe {
        let tid = raw(libc::SYS_gettid, [0; 6]).unsigned_abs();
        let pid = raw(libc::SYS_getpid, [0; 6]).unsigned_abs();
        let answer = raw(libc::SYS_rt_tgsigqueueinfo, [pid, tid, signal.into(), info.as_ptr() as u64, 0, 0]);
        if answer < 0 {
            raw(libc::SYS_tgkill, [pid, tid, signal.into(), 0, 0, 0]);
        }
    }
}

/// Ends the process by `signal`, for real: whoever waits for it sees just that.
pub fn die(signal: u32) -> ! {
    // Numbers that are none cannot come here; should one, the status below is as good as any.
    let _ = set_disposition(signal, Disposition::Default);
    let open = !bit(signal);
    // SAFETY: the kernel reads eight bytes; the signal's default action ends the process.
    unsafe {
        raw(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, (&raw const open) as u64, 0, 8, 0, 0]);
        let (pid, tid) = (raw(libc::SYS_getpid, [0; 6]), raw(libc::SYS_gettid, [0; 6]));
        raw(libc::SYS_tgkill, [pid.unsigned_abs(), tid.unsigned_abs(), signal.into(), 0, 0, 0]);
    }
    std::process::exit(128 + signal.cast_signed())
}
