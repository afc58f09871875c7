//! Points where a processor stops, for a debugger, and steps.
//!
//! Specification: SDM volume 3, chapter 18 (debug registers, single steps); `KVM_SET_GUEST_DEBUG` in the kernel's `virt/kvm/api.rst`.
//!
//! | manner | when | how |
//! |---|---|---|
//! | registers | four points at most | the processor's debug registers, which KVM gives to the host meanwhile |
//! | patches | more breakpoints | `int3` stands for the instructions, in memory; KVM takes that exception before the guest |
//! | steps | the processor or KVM has not the other two | after each instruction its address is compared |
//!
//! Watchpoints are always in registers, and none watches reads only. Debug registers do nothing in guests of an emulated processor (qemu's SVM loads the first four
//! not), and no data stops a guest whose kernel KVM interprets: there, what cannot be watched is refused.
//!
//! A step for a debugger holds interrupts back, where KVM can (Linux 5.16). Looks at every instruction do not, or the guest's time would stand still; handlers of
//! interrupts then run without looks, since the flag that makes a processor step is off in them.

use std::collections::BTreeSet;
use std::ops::Range;

use kvm_bindings::{
    KVM_CAP_SET_GUEST_DEBUG2, KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_INJECT_BP,
    KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP, kvm_debug_exit_arch, kvm_guest_debug,
};
use machine::debug::{Points, Stop, Watch, Watchpoint};

use super::{Host, KvmError, Tried, Vcpu};

/// How many points the processor has.
const POINTS_COUNT: usize = 4;
/// DR6: a single step.
const STEPPED: u64 = 1 << 14;
/// DR7: a bit that is always set.
const ALWAYS: u64 = 1 << 10;
/// The exception of debug registers and steps.
const DEBUG_VECTOR: u32 = 1;
/// The exception of `int3`.
const BREAKPOINT_VECTOR: u32 = 3;

/// What stops guests on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Debug registers with addresses of instructions.
    pub breakpoints: bool,
    /// Debug registers with addresses of data.
    pub watchpoints: bool,
    /// `int3`, taken by KVM.
    pub patches: bool,
    /// Steps can hold interrupts back.
    pub holds_interrupts: bool,
}

impl Abilities {
    pub(super) fn of(host: &Host) -> Self {
        let (emulated, interpreted) = (is_emulated(), Host::interprets_kernels());
        let flags = host.kvm.check_extension_raw(KVM_CAP_SET_GUEST_DEBUG2.into());
        Self {
            breakpoints: !emulated,
            watchpoints: !emulated && !interpreted,
            patches: !emulated && !interpreted,
            holds_interrupts: flags > 0 && flags.cast_unsigned() & KVM_GUESTDBG_BLOCKIRQ != 0,
        }
    }

    /// How processors here stop at `points`. `None` if they cannot.
    #[must_use]
    pub fn manner(&self, points: &Points) -> Option<Manner> {
        if !points.watchpoints.is_empty() && !self.watchpoints {
            return None;
        }
        if self.breakpoints && debug_registers(points, true).is_some() {
            return Some(Manner::Registers);
        }
        debug_registers(points, false)?;
        Some(if self.patches { Manner::Patches } else { Manner::Steps })
    }
}

/// Whether this host's processor is one that qemu emulates.
fn is_emulated() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0x4000_0000);
    [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).as_flattened() == b"TCGTCGTCGTCG"
}

/// How processors are made to stop. See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// By debug registers.
    Registers,
    /// Breakpoints by `int3`, which the board puts into memory; watchpoints by debug registers.
    Patches,
    /// By a look at each instruction's address.
    Steps,
}

/// Whether a processor comes out after each instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stepping {
    /// It does not.
    #[default]
    Off,
    /// For a debugger's step.
    Single,
    /// For a look at all of them.
    Every,
}

/// The debug registers that stop at `points`, of their breakpoints only if those are in registers: addresses and DR7. `None` if there are too many, or some that the
/// processor cannot watch.
fn debug_registers(points: &Points, has_breakpoints: bool) -> Option<([u64; POINTS_COUNT], u64)> {
    let (mut addresses, mut control) = ([0; POINTS_COUNT], ALWAYS);
    let mut used = 0;
    let mut add = |address: u64, kind: u64| {
        *addresses.get_mut(used)? = address;
        control |= 1 << (2 * used) | kind << (16 + 4 * used);
        used += 1;
        Some(())
    };
    // Watchpoints come behind: they have the same numbers as long as the breakpoints are.
    for address in points.breakpoints.iter().filter(|_| has_breakpoints) {
        add(*address, 0)?;
    }
    for point in &points.watchpoints {
        let access = match point.watch {
            Watch::Write => 0b01,
            Watch::Access => 0b11,
            Watch::Read => return None,
        };
        for (at, length) in pieces(point)? {
            let size = match length {
                1 => 0b00,
                2 => 0b01,
                4 => 0b11,
                _ => 0b10,
            };
            add(at, size << 2 | access)?;
        }
    }
    Some((addresses, control))
}

/// The aligned pieces of 1, 2, 4 or 8 bytes that a watchpoint is made of; `None` if they are more than the processor has.
fn pieces(point: &Watchpoint) -> Option<Vec<(u64, u64)>> {
    let mut pieces = Vec::new();
    let (mut at, mut left) = (point.address, point.length);
    while left > 0 {
        let length = [8, 4, 2, 1].into_iter().find(|length| at.is_multiple_of(*length) && *length <= left)?;
        pieces.push((at, length));
        (at, left) = (at.wrapping_add(length), left - length);
        if pieces.len() > POINTS_COUNT {
            return None;
        }
    }
    Some(pieces)
}

/// What a processor came out of the guest for, on behalf of a debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The next instruction.
    pub pc: u64,
    dr6: u64,
    exception: u32,
}

impl Hit {
    pub(super) fn new(exit: &kvm_debug_exit_arch) -> Self {
        Self { pc: exit.pc, dr6: exit.dr6, exception: exit.exception }
    }

    /// Why that stops a processor with these points, if it does. `step`: it stepped; it goes on while its program counter is in this range.
    #[must_use]
    pub fn stop(&self, points: &Points, step: Option<&Range<u64>>) -> Option<Stop> {
        if self.exception == BREAKPOINT_VECTOR {
            return points.breakpoints.contains(&self.pc).then_some(Stop::Breakpoint);
        }
        // Not in registers are only more breakpoints than there are registers.
        let mut first = points.breakpoints.len();
        if debug_registers(points, true).is_none() {
            first = 0;
        }
        for point in &points.watchpoints {
            let count = pieces(point).map_or(0, |pieces| pieces.len());
            if (first..first + count).any(|number| self.dr6 & 1 << number != 0) {
                return Some(Stop::Watchpoint { address: point.address, watch: point.watch });
            }
            first += count;
        }
        if points.breakpoints.contains(&self.pc) {
            return Some(Stop::Breakpoint);
        }
        let goes_on = step.is_none_or(|range| range.contains(&self.pc));
        (self.dr6 & STEPPED != 0 && !goes_on).then_some(Stop::Step)
    }

    /// Whether the guest has executed an `int3` of its own, which [`Vcpu::give_breakpoint`] gives back to it.
    #[must_use]
    pub fn is_guests_own(&self, points: &Points) -> bool {
        self.exception == BREAKPOINT_VECTOR && !points.breakpoints.contains(&self.pc)
    }
}

/// What a processor does for a debugger.
#[derive(Debug, Default)]
pub(super) struct Debug {
    /// What KVM was last told.
    told: kvm_guest_debug,
    /// The breakpoints that are looked for by steps.
    breakpoints: BTreeSet<u64>,
    /// Someone looks at every instruction.
    looks_at_all: bool,
}

impl Vcpu {
    /// From now on the processor comes out at `points`, and after instructions. Neither: as if there had never been a debugger.
    ///
    /// # Errors
    /// The host refuses, or it cannot stop at all of the points ([`Abilities::manner`]).
    pub fn stop_at(&mut self, points: &Points, stepping: Stepping) -> Result<(), KvmError> {
        let what = "stop the processor for a debugger";
        let told = guest_debug(&self.abilities, points, stepping);
        let told = told.ok_or(KvmError { what, cause: std::io::ErrorKind::InvalidInput.into() })?;
        self.fd.set_guest_debug(&told).tried(what)?;
        let by_steps = self.abilities.manner(points) == Some(Manner::Steps) && stepping != Stepping::Single;
        let breakpoints = if by_steps { points.breakpoints.clone() } else { BTreeSet::new() };
        self.debug = Debug { told, breakpoints, looks_at_all: stepping == Stepping::Every };
        Ok(())
    }

    /// As debug registers do, before the instruction: that it stands at a breakpoint, if those are looked for by steps.
    pub(super) fn at_breakpoint(&self) -> Option<Hit> {
        if self.debug.breakpoints.is_empty() {
            return None;
        }
        let pc = self.fd.get_regs().ok()?.rip.wrapping_add(self.fd.get_sregs().ok()?.cs.base);
        self.debug.breakpoints.contains(&pc).then_some(Hit { pc, dr6: 0, exception: DEBUG_VECTOR })
    }

    /// Whether nobody is interested in that step: it was one of those that look for breakpoints.
    pub(super) fn passes(&self, hit: &Hit) -> bool {
        let Debug { breakpoints, looks_at_all, .. } = &self.debug;
        !breakpoints.is_empty() && !looks_at_all && !breakpoints.contains(&hit.pc) && hit.exception == DEBUG_VECTOR
    }

    /// Has the processor step once more: flags that it has loaded, or an interrupt, may have ended that.
    pub(super) fn step_again(&self) {
        if self.debug.told.control & KVM_GUESTDBG_SINGLESTEP != 0 {
            // What it took before, KVM takes again.
            let _ = self.fd.set_guest_debug(&self.debug.told);
        }
    }

    /// Gives the guest the exception of its own `int3`, at which the processor stands.
    ///
    /// # Errors
    /// The host refuses.
    pub fn give_breakpoint(&self) -> Result<(), KvmError> {
        let told = self.debug.told;
        let debug = kvm_guest_debug { control: told.control | KVM_GUESTDBG_INJECT_BP, ..told };
        self.fd.set_guest_debug(&debug).tried("give the guest its breakpoint")
    }
}

/// What KVM is told. `None` if it cannot stop at all of the points.
fn guest_debug(abilities: &Abilities, points: &Points, stepping: Stepping) -> Option<kvm_guest_debug> {
    let manner = abilities.manner(points)?;
    let (addresses, dr7) = debug_registers(points, manner == Manner::Registers)?;
    let by_steps = manner == Manner::Steps && !points.breakpoints.is_empty();
    let control = match stepping {
        Stepping::Single if abilities.holds_interrupts => KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ,
        Stepping::Off if !by_steps => 0,
        _ => KVM_GUESTDBG_SINGLESTEP,
    };
    let control = control | if manner == Manner::Patches { KVM_GUESTDBG_USE_SW_BP } else { 0 };
    let mut debug = kvm_guest_debug::default();
    if control != 0 || dr7 != ALWAYS {
        debug.control = control | KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        debug.arch.debugreg[..POINTS_COUNT].copy_from_slice(&addresses);
        debug.arch.debugreg[7] = dr7;
    }
    Some(debug)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host's own processor.
    const BARE: Abilities = Abilities { breakpoints: true, watchpoints: true, patches: true, holds_interrupts: true };
    const INTERPRETED: Abilities = Abilities { watchpoints: false, patches: false, ..BARE };
    const EMULATED: Abilities = Abilities { breakpoints: false, ..INTERPRETED };

    fn points(breakpoints: &[u64], watchpoints: &[(u64, u64, Watch)]) -> Points {
        let watchpoint = |(address, length, watch): &(u64, u64, Watch)| Watchpoint {
            address: *address,
            length: *length,
            watch: *watch,
        };
        Points {
            breakpoints: breakpoints.iter().copied().collect(),
            watchpoints: watchpoints.iter().map(watchpoint).collect(),
        }
    }

    #[test]
    fn points_become_debug_registers() {
        let all = points(&[0x1000, 0x2000], &[(0x3001, 3, Watch::Write)]);
        assert_eq!(
            debug_registers(&all, true),
            Some(([0x1000, 0x2000, 0x3001, 0x3002], 0x400 | 0b0101_0101 | 0x5100_0000))
        );
        let one = debug_registers(&points(&[], &[(8, 8, Watch::Access)]), true);
        assert_eq!(one, Some(([8, 0, 0, 0], 0x400 | 1 | 0xb_0000)));
        assert_eq!(debug_registers(&points(&[1, 2, 3, 4, 5], &[(8, 8, Watch::Access)]), false), one);
    }

    #[test]
    fn points_are_stopped_at_as_the_host_can() {
        let few = points(&[1, 2, 3, 4], &[]);
        let many = points(&[1, 2, 3, 4, 5], &[]);
        let watched = points(&[1, 2, 3, 4], &[(8, 8, Watch::Write)]);
        let manners = |points| [BARE, INTERPRETED, EMULATED].map(|host| host.manner(points));
        let (registers, patches, steps) = (Some(Manner::Registers), Some(Manner::Patches), Some(Manner::Steps));
        assert_eq!(manners(&few), [registers, registers, steps]);
        assert_eq!(manners(&many), [patches, steps, steps]);
        assert_eq!(manners(&watched), [patches, None, None]);
        for wrong in [(0, 1 << 40, Watch::Write), (0, 8, Watch::Read)] {
            assert_eq!(BARE.manner(&points(&[], &[wrong])), None);
        }
    }

    #[test]
    fn kvm_is_told_what_is_wanted() {
        let (none, few) = (Points::default(), points(&[0x1000], &[]));
        let many = points(&[1, 2, 3, 4, 5], &[(8, 8, Watch::Write)]);
        let told = |host, points, stepping| {
            let debug = guest_debug(host, points, stepping).unwrap();
            (debug.control, debug.arch.debugreg[7])
        };
        let registers = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        let step = registers | KVM_GUESTDBG_SINGLESTEP;
        assert_eq!(told(&BARE, &none, Stepping::Off), (0, 0));
        assert_eq!(told(&BARE, &few, Stepping::Off), (registers, 0x401));
        assert_eq!(told(&BARE, &none, Stepping::Single), (step | KVM_GUESTDBG_BLOCKIRQ, 0x400));
        assert_eq!(told(&BARE, &none, Stepping::Every), (step, 0x400));
        assert_eq!(told(&BARE, &many, Stepping::Off), (registers | KVM_GUESTDBG_USE_SW_BP, 0x400 | 1 | 0x9_0000));
        assert_eq!(told(&EMULATED, &few, Stepping::Off), (step, 0x400));
        assert_eq!(told(&EMULATED, &none, Stepping::Off), (0, 0));
    }

    #[test]
    fn hits_are_told_apart() {
        let all = points(&[0x1000], &[(0x3000, 16, Watch::Write), (0x4000, 4, Watch::Access)]);
        let hit = |pc, dr6| Hit { pc, dr6, exception: 1 };
        let watched = |address, watch| Some(Stop::Watchpoint { address, watch });
        assert_eq!(hit(0x1000, 1).stop(&all, None), Some(Stop::Breakpoint));
        assert_eq!(hit(0x9000, 0b100).stop(&all, None), watched(0x3000, Watch::Write));
        assert_eq!(hit(0x9000, 0b1000).stop(&all, None), watched(0x4000, Watch::Access));
        assert_eq!(hit(0x9000, STEPPED).stop(&all, None), None, "nobody asked for a step");
        assert_eq!(hit(0x9000, STEPPED).stop(&all, Some(&(0x8000..0x9000))), Some(Stop::Step));
        assert_eq!(hit(0x9000, STEPPED).stop(&all, Some(&(0..0))), Some(Stop::Step));
        assert_eq!(hit(0x8004, STEPPED).stop(&all, Some(&(0x8000..0x9000))), None);
        assert_eq!(hit(0x1000, STEPPED).stop(&all, Some(&(0..0x9000))), Some(Stop::Breakpoint));
    }

    #[test]
    fn breakpoints_of_the_guests_own_are_the_guests() {
        let many = points(&[0x1000, 0x2000, 0x3000, 0x4000, 0x5000], &[(0x6000, 8, Watch::Write)]);
        let hit = |pc| Hit { pc, dr6: 0, exception: BREAKPOINT_VECTOR };
        assert_eq!((hit(0x3000).stop(&many, None), hit(0x3000).is_guests_own(&many)), (Some(Stop::Breakpoint), false));
        assert_eq!((hit(0x3001).stop(&many, None), hit(0x3001).is_guests_own(&many)), (None, true));
        let watched = Hit { pc: 0x9000, dr6: 1, exception: 1 };
        assert_eq!(watched.stop(&many, None), Some(Stop::Watchpoint { address: 0x6000, watch: Watch::Write }));
        assert!(!watched.is_guests_own(&many));
    }
}
