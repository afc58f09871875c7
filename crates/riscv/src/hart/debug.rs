//! Seeing into a hart: breakpoints, watchpoints, single steps, traces, and memory as the hart sees it.
//!
//! ```text
//! block:   slot, slot, slot | checked slot ...     a block ends before an instruction that needs a look,
//!                           ^                      and nothing is linked or jumps to the block that begins there:
//!                           |                      every way to it leads through Hart::find, which looks
//! ```
//!
//! An instruction is *checked* if its place in its page is that of a breakpoint (blocks know physical addresses only, so the look at the whole
//! virtual address comes when it is about to be executed), or, while there are watchpoints, if it accesses memory. The check computes
//! the bytes that it is about to access from its operands, so watchpoints need nothing of the TLB and work for any shape of memory. An instruction
//! that touches a watched byte is executed alone, and the hart stops after it. Guest memory is never patched.
//!
//! Cost: without points and without a tracer, one test of a pointer where a block is looked up the slow way and one at each [`Hart::run`]. With breakpoints,
//! interpretation at full speed and no translated code; with watchpoints, a slow look-up for each load and store; with a tracer, one
//! for each instruction.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use machine::GuestPhysical;
use machine::address::{PAGE_SIZE, host_size};
pub use machine::debug::{Points, Stop, Watch, Watchpoint};

use super::trap::{Cause, Trap};
use super::{Exit, Fence, Hart, Privilege};
use crate::isa::{Instruction, Op, decode};
use crate::mmu::walk::{Satp, look_up};

/// One instruction, before and after it was executed.
#[derive(Clone, Copy, Debug)]
pub struct Traced {
    /// `mhartid` of the hart.
    pub hart: u64,
    /// Its address.
    pub pc: u64,
    /// The mode that it was executed in.
    pub privilege: Privilege,
    /// Its bits: 16 of them if the lowest two are not both set, else 32.
    pub bits: u32,
    /// The register that it wrote: 1 to 31 for `x`, 32 to 63 for `f`, and the new value.
    pub written: Option<(u8, u64)>,
    /// It trapped, and was not executed: the address of the handler.
    pub trapped_to: Option<u64>,
}

/// What sees every instruction of a hart.
pub trait Tracer: Send + Sync {
    /// Whether the instruction at `pc` is to be reported.
    fn wants(&self, pc: u64) -> bool;

    /// The instruction has been executed.
    fn instruction(&self, traced: &Traced);
}

/// The state of a hart that is being looked at.
#[derive(Clone, Default)]
pub(crate) struct Debug {
    points: Arc<Points>,
    /// One bit for each halfword of a page: a breakpoint is at this place in some page.
    places: [u64; 32],
    tracer: Option<Arc<dyn Tracer>>,
}

impl fmt::Debug for Debug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Debug").field("points", &self.points).finish_non_exhaustive()
    }
}

impl Debug {
    /// Whether the instruction `bits` at `address`, physical or virtual, needs a look before it is executed.
    pub(crate) fn is_checked(&self, address: u64, bits: u32) -> bool {
        let place = host_size((address & (PAGE_SIZE - 1)) / 2);
        self.places[place / 64] >> (place % 64) & 1 != 0
            || (!self.points.watchpoints.is_empty() && decode(bits).is_some_and(|it| operand(&it).is_some()))
    }

    fn watchpoint(&self, first: u64, length: u64, watch: Watch) -> Option<Stop> {
        // Differences rather than ends, since ranges may run to the end of the address space.
        let hit = |point: &&Watchpoint| {
            let same = watch == Watch::Access || point.watch == Watch::Access || watch == point.watch;
            same && (first.wrapping_sub(point.address) < point.length || point.address.wrapping_sub(first) < length)
        };
        self.points.watchpoints.iter().find(hit).map(|point| Stop::Watchpoint {
            address: if first.wrapping_sub(point.address) < point.length { first } else { point.address },
            watch: point.watch,
        })
    }
}

/// How many bytes an instruction accesses at its base register plus immediate, and how; `None` for one that accesses none.
fn operand(instruction: &Instruction) -> Option<(u64, Watch)> {
    use Op::*;
    Some(match instruction.op {
        Lb | Lbu => (1, Watch::Read),
        Lh | Lhu => (2, Watch::Read),
        Lw | Lwu | Flw | LrW => (4, Watch::Read),
        Ld | Fld | LrD => (8, Watch::Read),
        Sb => (1, Watch::Write),
        Sh => (2, Watch::Write),
        Sw | Fsw | ScW => (4, Watch::Write),
        Sd | Fsd | ScD => (8, Watch::Write),
        AmoswapW | AmoaddW | AmoxorW | AmoandW | AmoorW | AmominW | AmomaxW | AmominuW | AmomaxuW => (4, Watch::Access),
        AmoswapD | AmoaddD | AmoxorD | AmoandD | AmoorD | AmominD | AmomaxD | AmominuD | AmomaxuD => (8, Watch::Access),
        CboZero => (super::CACHE_BLOCK_BYTES, Watch::Write),
        _ => return None,
    })
}

/// The register that an instruction writes, as [`Traced::written`] numbers them.
fn destination(bits: u32) -> Option<u8> {
    let instruction = decode(bits)?;
    let operands = instruction.op.line().operands;
    if operands.starts_with("fd") {
        return Some(32 + instruction.rd);
    }
    (operands.starts_with("rd") && instruction.rd != 0).then_some(instruction.rd)
}

impl Hart {
    /// From now on the hart stops at these points; none at all is what it is made with.
    pub fn set_points(&mut self, points: Arc<Points>) {
        let mut places = [0; 32];
        for address in &points.breakpoints {
            let place = host_size((address & (PAGE_SIZE - 1)) / 2);
            places[place / 64] |= 1 << (place % 64);
        }
        let tracer = self.debug.take().and_then(|debug| debug.tracer);
        self.set_debug(Debug { points, places, tracer });
    }

    /// From now on `tracer` sees every instruction.
    pub fn set_tracer(&mut self, tracer: Option<Arc<dyn Tracer>>) {
        let debug = self.debug.take().map(|debug| *debug).unwrap_or_default();
        self.set_debug(Debug { tracer, ..debug });
    }

    fn set_debug(&mut self, debug: Debug) {
        let idle = debug.tracer.is_none() && *debug.points == Points::default();
        self.debug = (!idle).then(|| Box::new(debug));
        // Blocks begin and end elsewhere now.
        self.block = self.blocks.clear();
    }

    /// Looks at the checked instruction at the program counter, about to be executed. `Err`: the hart's `exit` says why it is not to be, or it
    /// cannot even be fetched.
    #[cold]
    pub(crate) fn look_at_points(&mut self) -> Result<(), Trap> {
        match self.stop_here()? {
            None => Ok(()),
            Some(stop) => {
                self.exit = Some(Exit::Debug(stop));
                // It is not taken, since there is an exit.
                Err(Trap::new(Cause::Breakpoint, self.pc))
            }
        }
    }

    /// The breakpoint at the program counter, or the watchpoint that the instruction there is about to touch.
    fn stop_here(&mut self) -> Result<Option<Stop>, Trap> {
        let Some(debug) = &self.debug else { return Ok(None) };
        if debug.points.breakpoints.contains(&self.pc) {
            return Ok(Some(Stop::Breakpoint));
        }
        self.watchpoint_here()
    }

    fn watchpoint_here(&mut self) -> Result<Option<Stop>, Trap> {
        if self.debug.as_ref().is_none_or(|debug| debug.points.watchpoints.is_empty()) {
            return Ok(None);
        }
        let Some(instruction) = decode(self.fetch(self.pc)?) else { return Ok(None) };
        let Some((length, watch)) = operand(&instruction) else { return Ok(None) };
        let address = self.x(instruction.rs1).wrapping_add(i64::from(instruction.imm).cast_unsigned());
        let address = if instruction.op == Op::CboZero { address & !(length - 1) } else { address };
        Ok(self.debug.as_ref().and_then(|debug| debug.watchpoint(address, length, watch)))
    }

    /// [`Hart::run`] while someone looks.
    pub(crate) fn run_debugged(&mut self) -> Exit {
        loop {
            if let Some(exit) = self.look().or_else(|| self.execute_debugged()) {
                return exit;
            }
        }
    }

    /// [`Hart::run_exactly`] while someone looks.
    pub(crate) fn run_debugged_exactly(&mut self) -> Option<Exit> {
        while self.exact_left() > 0 {
            self.look_if_due();
            if let Some(exit) = self.execute_debugged() {
                return Some(exit);
            }
        }
        None
    }

    /// Executes a slice while someone looks.
    fn execute_debugged(&mut self) -> Option<Exit> {
        let exit = if self.debug.as_ref().is_some_and(|debug| debug.tracer.is_some()) {
            match self.stop_here() {
                Ok(Some(stop)) => Some(Exit::Debug(stop)),
                // A fetch that traps is for the execution to meet again.
                Ok(None) | Err(_) => self.execute_alone(),
            }
        } else {
            self.execute_slice()
        };
        let Some(Exit::Debug(stop @ Stop::Watchpoint { .. })) = exit else { return exit };
        let before = self.retired();
        // It has not been touched if the access has trapped.
        self.execute_alone().or_else(|| (self.retired() != before).then_some(Exit::Debug(stop)))
    }

    /// Executes one instruction or takes the trap that it causes, seen by the tracer.
    fn execute_alone(&mut self) -> Option<Exit> {
        let tracer = self.debug.as_ref().and_then(|debug| debug.tracer.clone());
        let Some(tracer) = tracer.filter(|tracer| tracer.wants(self.pc)) else {
            return self.execute_one();
        };
        let (pc, privilege, before) = (self.pc, self.privilege, self.retired());
        let Ok(bits) = self.fetch(pc) else { return self.execute_one() };
        let exit = self.execute_one();
        let done = self.retired() != before || exit.is_some();
        tracer.instruction(&Traced {
            hart: self.config.id,
            pc,
            privilege,
            bits,
            written: destination(bits).filter(|_| done).map(|number| match number {
                0..32 => (number, self.x(number)),
                _ => (number, self.f(number - 32)),
            }),
            trapped_to: (!done).then_some(self.pc),
        });
        exit
    }

    /// Executes one instruction, and others as long as the program counter stays in `range` and nothing stops the hart. Interrupts wait
    /// meanwhile, so that a step does not lead into a handler. A breakpoint at the first instruction does not count.
    pub fn step_debugged(&mut self, range: &Range<u64>) -> Exit {
        self.enter_guest();
        let exit = loop {
            if self.look_outside() {
                break Exit::Attention;
            }
            // A fetch that traps is for the execution to meet again.
            let watched = self.watchpoint_here().unwrap_or(None);
            let before = self.retired();
            if let Some(exit) = self.execute_alone() {
                break exit;
            }
            match watched {
                Some(stop) if self.retired() != before => break Exit::Debug(stop),
                _ if !range.contains(&self.pc) => break Exit::Debug(Stop::Step),
                _ if self.debug.as_ref().is_some_and(|debug| debug.points.breakpoints.contains(&self.pc)) => {
                    break Exit::Debug(Stop::Breakpoint);
                }
                _ => {}
            }
        };
        self.leave_guest();
        exit
    }

    /// Where virtual address `at` leads in the hart's present mode, whatever its permissions. Changes nothing: neither TLB nor accessed bits.
    #[must_use]
    pub fn physical(&self, at: u64) -> Option<GuestPhysical> {
        let machine = self.privilege == Privilege::Machine;
        look_up(&self.memory, if machine { Satp(0) } else { Satp(self.csrs.satp) }, at).map(GuestPhysical)
    }

    /// Reads memory at virtual address `at`, without touching devices: how many bytes there were before the first that is not memory.
    pub fn read_virtual(&self, at: u64, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let here = at.wrapping_add(done as u64);
            let end = bytes.len().min(done + host_size(PAGE_SIZE - (here & (PAGE_SIZE - 1))));
            let read = self.physical(here).map(|physical| self.memory.read(physical, &mut bytes[done..end]));
            if read != Some(Ok(())) {
                break;
            }
            done = end;
        }
        done
    }

    /// Writes memory at virtual address `at`, read-only pages too, without touching devices; false if part of it is not memory, and then that part is left
    /// out. This hart executes what was written; others do after a [`Fence::Instructions`].
    pub fn write_virtual(&mut self, at: u64, bytes: &[u8]) -> bool {
        let mut done = 0;
        while done < bytes.len() {
            let here = at.wrapping_add(done as u64);
            let end = bytes.len().min(done + host_size(PAGE_SIZE - (here & (PAGE_SIZE - 1))));
            let written = self.physical(here).map(|physical| self.memory.write(physical, &bytes[done..end]));
            if written != Some(Ok(())) {
                break;
            }
            done = end;
        }
        self.fence(Fence::Instructions);
        done == bytes.len()
    }
}
