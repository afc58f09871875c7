//! Which host register holds which guest register.
//!
//! The assignment is the same in all of a unit, and the same for all units at the links between them ([`Mapping::at_links`]), so where a
//! guest register is depends on nothing but the unit that the host is in. Those without a host register are in the hart.
//!
//! | host | |
//! |---|---|
//! | `rbp` | the hart, plus [`BIAS`]: what was stored there is at hand sooner than by another register (AMD) |
//! | `r14` | the budget: instructions left in the slice |
//! | `rsp` | host return address, then the guest address that it stands for: see the return stack in [`super::control`] |
//! | `rax`, `rcx` | temporaries inside one instruction |
//! | `rdx` | the same in system machines; in user machines one more guest register, which is in the hart while an instruction [`needs_rdx`] |
//! | `xmm0`, `xmm1` | the same |
//! | others | guest registers; vector registers that are not assigned hold them for a while |

use codegen::x64::{Gpr, Mem, Xmm};

use crate::hart::Hart;
use crate::isa::{Extension, Instruction, Op};

/// Where `rbp` points inside the hart: the integer registers are then within a signed byte of it.
pub(super) const BIAS: i32 = 128;
/// The hart, plus [`BIAS`].
pub(super) const HART: Gpr = Gpr::Rbp;
/// Instructions left in the slice.
pub(super) const BUDGET: Gpr = Gpr::R14;

/// A field of the hart, by its offset.
pub(super) fn field(offset: usize) -> Mem {
    // The hart is a few kilobytes.
    Mem::at(HART, i32::try_from(offset).unwrap_or(i32::MAX) - BIAS)
}

/// Guest register `f` in the hart.
pub(super) fn home_float(register: u8) -> Mem {
    field(std::mem::offset_of!(Hart, f) + 8 * usize::from(register & 31))
}

/// Guest register `x` in the hart.
pub(super) fn home(register: u8) -> Mem {
    field(std::mem::offset_of!(Hart, x) + 8 * usize::from(register & 31))
}

/// Whether the host code for an instruction wants `rdx` for itself. In system machines accesses to memory do, too.
pub(super) fn needs_rdx(i: &Instruction) -> bool {
    use Op::*;
    let divides = matches!(i.op, Div | Divu | Rem | Remu | Divw | Divuw | Remw | Remuw | Mulh | Mulhu | Mulhsu);
    let chooses = matches!(i.op, CzeroEqz | CzeroNez | Csrrw);
    divides
        || chooses
        || matches!(i.op.line().extension, Extension::A | Extension::Zknd | Extension::Zknh | Extension::Zksh)
}

/// An assignment of guest registers to host registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// By guest register.
    x: [Option<Gpr>; 32],
    /// The vector register by floating-point register; 0 for none.
    f: [u8; 32],
}

/// Vector registers that a unit's own assignment may use: the last ones.
pub(super) const VECTORS: u8 = 10;

impl Mapping {
    /// The pairs of the assignment at links, and of all units that are not regions: what compilers use most. The last is for user machines.
    const PINNED: [(u8, Gpr); 11] = [
        (1, Gpr::R12),
        (2, Gpr::R15),
        (8, Gpr::Rbx),
        (9, Gpr::R13),
        (10, Gpr::Rdi),
        (11, Gpr::Rsi),
        (12, Gpr::R8),
        (13, Gpr::R9),
        (14, Gpr::R10),
        (15, Gpr::R11),
        (18, Gpr::Rdx),
    ];

    const fn of_pinned(count: usize) -> Self {
        let mut x = [None; 32];
        let mut i = 0;
        while i < count {
            x[Self::PINNED[i].0 as usize] = Some(Self::PINNED[i].1);
            i += 1;
        }
        Self { x, f: [0; 32] }
    }

    /// The assignment at links. `flat`: in a user machine.
    pub(super) const fn at_links(flat: bool) -> &'static Self {
        const USER: Mapping = Mapping::of_pinned(Mapping::PINNED.len());
        const SYSTEM: Mapping = Mapping::of_pinned(Mapping::PINNED.len() - 1);
        if flat { &USER } else { &SYSTEM }
    }

    /// The host register of an integer register.
    pub(super) fn get(&self, register: u8) -> Option<Gpr> {
        self.x[usize::from(register & 31)]
    }

    /// Gives `register` the host register of `other`, which goes to the hart.
    pub(super) fn replace(&mut self, other: u8, register: u8) {
        self.x[usize::from(register & 31)] = self.x[usize::from(other & 31)].take();
    }

    /// `register` goes to the hart.
    pub(super) fn remove(&mut self, register: u8) {
        self.x[usize::from(register & 31)] = None;
    }

    /// The guest register in `rdx`.
    pub(super) fn in_rdx(&self) -> Option<u8> {
        self.pairs().find_map(|(register, host)| (host == Gpr::Rdx).then_some(register))
    }

    /// The vector register of a floating-point register: all 64 bits as the guest has them.
    pub(super) fn vector(&self, register: u8) -> Option<Xmm> {
        Some(self.f[usize::from(register & 31)]).filter(|host| *host != 0).map(Xmm)
    }

    /// Gives floating-point registers vector registers.
    pub(super) fn assign_vectors(&mut self, registers: impl Iterator<Item = u8>) {
        for (register, host) in registers.zip((16 - VECTORS..16).rev()) {
            self.f[usize::from(register & 31)] = host;
        }
    }

    /// All pairs of floating-point and vector registers.
    pub(super) fn vectors(&self) -> impl Iterator<Item = (u8, Xmm)> + use<> {
        let f = self.f;
        (0..32).filter_map(move |register: u8| {
            let host = f[usize::from(register)];
            (host != 0).then_some((register, Xmm(host)))
        })
    }

    /// All pairs of integer registers.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (u8, Gpr)> + use<> {
        let x = self.x;
        (0..32).filter_map(move |register: u8| x[usize::from(register)].map(|host| (register, host)))
    }
}
