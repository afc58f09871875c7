//! The emitter: from pieces to host code.
//!
//! ```text
//! unit:   piece:  budget -= instructions; none left? -------------> cold: exit "budget"
//!                 instruction, instruction, ...  slow ways -------> cold: call out, back
//!                 branch --> another piece of the unit
//!                        --> edge: registers to the default assignment, link to another unit
//!         cold paths
//! ```
//!
//! To add an instruction, emit it in the module of its chapter; what none of them knows is executed by the interpreter's handler, by a call
//! out of the unit.
//!
//! Rules for the modules:
//! - `rax`, `rcx`, `rdx`, `xmm0` and `xmm1` are free inside one instruction; [`Emitter::read`] and [`Emitter::target`] say where guest registers are.
//! - A guest register changes only after everything in the instruction that may fault or call out; then it may be recovered at any host address.
//! - The budget is charged at the head of a piece. What leaves early takes a refund ([`Emitter::refund`]).
//! - Host flags live inside one instruction only.

use std::mem::offset_of;

use codegen::x64::{Alu, Assembler, Cc, Gpr, Label, Mem, Rm, Size};

use super::gather::{Line, Piece, ends_piece, is_left_to_the_interpreter};
use super::mapping::{BUDGET, Mapping, field, home};
use super::options::Options;
use super::state::HartState;
use super::{atomic, bits, control, float, integer, memory};
use crate::hart::Hart;
use crate::hart::block::Block;
use crate::hart::interpreter::single_block;

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A basic block.
    Block,
    /// A loop, or several blocks.
    Region,
}

/// Why a unit is left, apart from jumps to an address known only then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The next instruction is in another unit, or in none.
    Find,
    /// As `Find`, and the jump at this offset in the arena may be linked to it.
    Link(u32),
    /// The slice ends inside the piece that would come next.
    Budget,
    /// The interpreter is to execute the block, and to go on.
    Interpret,
}

/// What the outside must know where a unit is left or calls out.
pub(crate) struct Exit {
    pub(crate) reason: Reason,
    /// Where the guest is.
    pub(crate) place: u64,
    /// What was charged and has not been executed.
    pub(crate) refund: i64,
    /// It is a region's.
    pub(crate) in_region: bool,
    /// The one instruction to interpret.
    pub(crate) block: Option<Block>,
}

// SAFETY: nothing of it changes once it is published; the block's cells are never set, since it has no links.
unsafe impl Sync for Exit {}
// SAFETY: it is tied to no thread; the block's pointers are into what it owns.
unsafe impl Send for Exit {}

/// From here on in the host code, until the next mark, the guest is at `place`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Offset in the unit's code.
    pub(super) host: u32,
    pub(super) refund: u32,
    pub(super) place: u64,
}

/// A unit's code and what belongs to it.
pub(super) struct Emitted {
    pub(super) code: Vec<u8>,
    /// By rising offset.
    pub(super) marks: Vec<Mark>,
    #[expect(clippy::vec_box, reason = "the code holds their addresses")]
    pub(super) exits: Vec<Box<Exit>>,
    pub(super) mapping: Mapping,
}

/// An operand of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `x0`.
    Zero,
    Host(Gpr),
    Hart(Mem),
}

/// Heads of loops begin at multiples of this.
const LOOP_ALIGNMENT: usize = 16;

type Cold = Box<dyn FnOnce(&mut Emitter<'_>)>;

/// Host code in the making.
pub(super) struct Emitter<'a> {
    pub(super) asm: Assembler,
    pub(super) options: &'a Options,
    /// A user machine: addresses are absolute, memory is flat.
    pub(super) flat: bool,
    is_region: bool,
    /// The assignment inside the unit.
    unit_mapping: Mapping,
    /// The assignment now: the unit's, or on its edges the default.
    pub(super) mapping: Mapping,
    /// The instruction being emitted.
    pub(super) line: Line,
    /// What was charged for it and for those after it in its piece.
    pub(super) refund: i64,
    /// Values of registers, as far as they are the same whenever control comes here.
    known: [Option<u64>; 32],
    /// Places of pieces that the unit jumps back to.
    loops: Vec<u64>,
    /// Heads of the unit's pieces.
    heads: Vec<(u64, Label)>,
    marks: Vec<Mark>,
    /// Floating-point registers.
    pub(super) held: float::Held,
    #[expect(clippy::vec_box, reason = "the code holds their addresses")]
    exits: Vec<Box<Exit>>,
    /// Exits whose jump may be linked, and where it is.
    cold: Vec<Cold>,
}

/// Emits a unit that is entered at the piece at `entry`. Registers are assigned by `mapping` inside.
pub(super) fn emit(
    pieces: &[Piece],
    entry: u64,
    kind: Kind,
    mapping: Mapping,
    flat: bool,
    options: &Options,
) -> Option<Emitted> {
    let first = pieces.first()?;
    let mut emitter = Emitter {
        asm: Assembler::new(),
        options,
        flat,
        is_region: kind == Kind::Region,
        unit_mapping: mapping,
        mapping,
        line: *first.lines.first()?,
        refund: 0,
        known: [None; 32],
        loops: pieces.iter().flat_map(super::regions::back_edges).collect(),
        heads: Vec::new(),
        marks: Vec::new(),
        held: float::Held::default(),
        exits: Vec::new(),
        cold: Vec::new(),
    };
    for piece in pieces {
        let label = emitter.asm.label();
        emitter.heads.push((piece.place, label));
    }
    emitter.enter_mapping();
    if first.place != entry {
        let head = emitter.head(entry)?;
        emitter.asm.jmp(head);
    }
    for (index, piece) in pieces.iter().enumerate() {
        let next = pieces.get(index + 1).map(|piece| piece.place);
        emitter.piece(index, piece, next);
    }
    while !emitter.cold.is_empty() {
        for cold in std::mem::take(&mut emitter.cold) {
            cold(&mut emitter);
        }
    }
    let Emitter { asm, marks, exits, .. } = emitter;
    let code = asm.finish();
    Some(Emitted { code, marks, exits, mapping })
}

impl Emitter<'_> {
    fn piece(&mut self, index: usize, piece: &Piece, next: Option<u64>) {
        let label = self.heads[index].1;
        if self.loops.contains(&piece.place) {
            self.asm.align(LOOP_ALIGNMENT, 0);
        }
        self.asm.bind(label);
        self.known = [None; 32];
        self.held.forget();
        let count = i32::try_from(piece.lines.len()).unwrap_or(i32::MAX);
        self.refund = count.into();
        self.line = piece.lines[0];
        self.mark();
        let out = self.asm.label();
        self.asm.alu_imm(Alu::Sub, Size::B64, BUDGET, count);
        self.asm.jcc(Cc::L, out);
        self.cold_exit(out, Reason::Budget, piece.place, count.into());
        let mut lines = piece.lines.as_slice();
        while let [line, rest @ ..] = lines {
            self.line = *line;
            self.mark();
            if ends_piece(line.instruction.op) {
                self.refund -= 1;
                if is_left_to_the_interpreter(line.instruction.op) {
                    self.refund += 1;
                    self.leave_to_interpreter();
                } else {
                    control::emit(self, next);
                    self.mapping = self.unit_mapping;
                }
                return;
            }
            let taken = if self.options.fusion { integer::fused(self, lines) } else { 0 };
            let taken = if taken == 0 {
                self.instruction();
                1
            } else {
                taken
            };
            self.held.settle();
            lines = lines.get(taken..).unwrap_or(&rest[rest.len()..]);
            self.refund -= i64::try_from(taken).unwrap_or(1);
        }
        let end = piece.end();
        if next != Some(end) {
            self.edge(end);
        }
    }

    /// One instruction that does not end a piece.
    fn instruction(&mut self) {
        let instruction = self.line.instruction;
        let known = integer::known(self, &instruction);
        let emitted = integer::emit(self, &instruction)
            || memory::emit(self, &instruction)
            || self.options.float && float::emit(self, &instruction)
            || self.options.atomics && atomic::emit(self, &instruction)
            || self.options.bits && bits::emit(self, &instruction);
        if !emitted {
            self.call_out();
            self.held.forget();
        }
        if !instruction.op.line().writes_float() {
            self.known[usize::from(instruction.rd & 31)] = known;
        }
    }

    /// Notes that what follows in the code belongs to the current instruction.
    fn mark(&mut self) {
        let host = u32::try_from(self.asm.offset()).unwrap_or(u32::MAX);
        let refund = u32::try_from(self.refund).unwrap_or(0);
        // An instruction without code leaves no trace.
        self.marks.pop_if(|last| last.host == host);
        self.marks.push(Mark { host, refund, place: self.line.place });
    }

    // Registers.

    /// Where guest register `register` is.
    pub(super) fn place(&self, register: u8) -> Place {
        match (register & 31, self.mapping.get(register)) {
            (0, _) => Place::Zero,
            (_, Some(host)) => Place::Host(host),
            (_, None) => Place::Hart(home(register)),
        }
    }

    /// A guest register other than `x0` as an operand.
    pub(super) fn rm(&self, register: u8) -> Rm {
        match self.mapping.get(register) {
            Some(host) => host.into(),
            None => home(register).into(),
        }
    }

    /// The value of a guest register in a host register, not to be changed: its own, or `temporary`.
    pub(super) fn read(&mut self, register: u8, temporary: Gpr) -> Gpr {
        match self.place(register) {
            Place::Host(host) => host,
            _ => {
                self.copy(register, temporary);
                temporary
            }
        }
    }

    /// Copies the value of a guest register to `to`.
    pub(super) fn copy(&mut self, register: u8, to: Gpr) {
        match self.place(register) {
            Place::Zero => self.asm.mov_imm(to, 0),
            Place::Host(host) if host == to => {}
            Place::Host(host) => self.asm.mov(Size::B64, to, host),
            Place::Hart(mem) => self.asm.mov(Size::B64, to, mem),
        }
    }

    /// Where to compute the new value of a guest register: its own host register, or `temporary`. [`Self::write`] must follow.
    pub(super) fn target(&self, register: u8, temporary: Gpr) -> Gpr {
        if register == 0 { temporary } else { self.mapping.get(register).unwrap_or(temporary) }
    }

    /// The new value of a guest register is in `from`.
    pub(super) fn write(&mut self, register: u8, from: Gpr) {
        match self.place(register) {
            Place::Host(host) if host != from => self.asm.mov(Size::B64, host, from),
            Place::Hart(mem) => self.asm.mov_store(Size::B64, mem, from),
            _ => {}
        }
    }

    /// Sets a guest register to a constant.
    pub(super) fn write_constant(&mut self, register: u8, value: u64) {
        if register == 0 {
            return;
        }
        match self.mapping.get(register) {
            Some(host) => self.asm.mov_imm(host, value),
            None => match i32::try_from(value.cast_signed()) {
                Ok(small) => self.asm.mov_store_imm(Size::B64, home(register), small),
                Err(_) => {
                    self.asm.mov_imm(Gpr::Rax, value);
                    self.asm.mov_store(Size::B64, home(register), Gpr::Rax);
                }
            },
        }
    }

    /// The value of a guest register, if it is always the same here.
    pub(super) fn constant(&self, register: u8) -> Option<u64> {
        match register & 31 {
            0 => Some(0),
            register if self.options.constants => self.known[usize::from(register)],
            _ => None,
        }
    }

    /// From now on, until it is written again, the register has this value.
    pub(super) fn set_known(&mut self, register: u8, value: Option<u64>) {
        if register & 31 != 0 {
            self.known[usize::from(register & 31)] = value;
        }
    }

    /// The guest address of `place` into a host register.
    pub(super) fn address_of(&mut self, place: u64, to: Gpr) {
        if self.flat {
            self.asm.mov_imm(to, place);
        } else {
            self.asm.mov(Size::B64, to, field(offset_of!(Hart, translator) + offset_of!(HartState, page)));
            // Places near a page fit.
            if let Ok(offset) = i32::try_from(place.cast_signed()) {
                self.asm.lea(to, Mem::at(to, offset));
            }
        }
    }

    // Cold paths.

    /// Emits something behind the unit's hot code.
    pub(super) fn cold(&mut self, emit: impl FnOnce(&mut Emitter<'_>) + 'static) {
        let (line, refund, mapping) = (self.line, self.refund, self.mapping);
        self.cold.push(Box::new(move |emitter| {
            (emitter.line, emitter.refund, emitter.mapping) = (line, refund, mapping);
            emitter.mark();
            emit(emitter);
        }));
    }

    /// Cold: the current instruction is executed by the interpreter, then control goes on at `back`. Jump to the answer; guest registers must be
    /// as before the instruction.
    pub(super) fn slow(&mut self, back: Label) -> Label {
        let label = self.asm.label();
        let number = self.held.number();
        self.cold(move |emitter| {
            emitter.asm.bind(label);
            emitter.call_out();
            float::reload(emitter, number);
            emitter.asm.jmp(back);
        });
        label
    }

    /// The current instruction is executed by the interpreter, here; control goes on behind it unless the instruction traps.
    pub(super) fn call_out(&mut self) {
        let Line { bits, place, .. } = self.line;
        let block = Some(single_block(bits));
        let exit =
            Box::new(Exit { reason: Reason::Interpret, place, refund: self.refund, in_region: self.is_region, block });
        self.leave_mapping();
        self.asm.mov_imm(Gpr::Rax, (&raw const *exit) as u64);
        self.asm.call_rm(field(offset_of!(Hart, translator) + offset_of!(HartState, call_out)));
        self.enter_mapping();
        self.exits.push(exit);
    }

    /// The unit ends; the interpreter executes the current instruction.
    pub(super) fn leave_to_interpreter(&mut self) {
        let Line { bits, place, .. } = self.line;
        self.leave_mapping();
        self.exit(Reason::Interpret, place, self.refund, Some(single_block(bits)));
    }

    /// Leaves translated code. Registers are in the default assignment.
    fn exit(&mut self, reason: Reason, place: u64, refund: i64, block: Option<Block>) {
        let exit = Box::new(Exit { reason, place, refund, in_region: self.is_region, block });
        self.asm.mov_imm(Gpr::Rax, (&raw const *exit) as u64);
        self.asm.jmp_rm(field(offset_of!(Hart, translator) + offset_of!(HartState, leave)));
        self.exits.push(exit);
    }

    /// Cold, at `label`: leaves translated code.
    pub(super) fn cold_exit(&mut self, label: Label, reason: Reason, place: u64, refund: i64) {
        self.cold(move |emitter| {
            emitter.asm.bind(label);
            emitter.leave_mapping();
            emitter.exit(reason, place, refund, None);
        });
    }

    // Edges.

    /// The head of the piece at `place`, if it is one of this unit's.
    pub(super) fn head(&self, place: u64) -> Option<Label> {
        self.heads.iter().find(|(head, _)| *head == place).map(|(_, label)| *label)
    }

    /// A label to jump to in order to go on at `place`.
    pub(super) fn way_to(&mut self, place: u64) -> Label {
        if let Some(head) = self.head(place) {
            return head;
        }
        let label = self.asm.label();
        self.cold(move |emitter| {
            emitter.asm.bind(label);
            emitter.leave_mapping();
            emitter.link(place);
        });
        label
    }

    /// Goes on at `place`. Everything charged has been executed.
    pub(super) fn edge(&mut self, place: u64) {
        if let Some(head) = self.head(place) {
            self.asm.jmp(head);
        } else {
            self.leave_mapping();
            self.link(place);
        }
    }

    /// Goes on in the unit at `place`, once there is one. Registers are in the default assignment.
    pub(super) fn link(&mut self, place: u64) {
        if !self.flat && place >= 0x1000 {
            self.address_of(place, Gpr::Rax);
            control::jump(self);
            return;
        }
        if !self.options.links {
            self.exit(Reason::Find, place, 0, None);
            return;
        }
        let unlinked = self.asm.label();
        let site = self.asm.jmp_patchable(unlinked);
        self.cold(move |emitter| {
            emitter.asm.bind(unlinked);
            emitter.exit(Reason::Link(site), place, 0, None);
        });
    }

    /// From the default assignment to the unit's own.
    pub(super) fn enter_mapping(&mut self) {
        self.exchange(Mapping::DEFAULT, self.unit_mapping);
    }

    /// From the unit's own assignment to the default.
    pub(super) fn leave_mapping(&mut self) {
        self.exchange(self.mapping, Mapping::DEFAULT);
    }

    /// As [`Self::leave_mapping`], and registers are read and written where they then are, until the end of the piece.
    pub(super) fn leave_mapping_for_good(&mut self) {
        self.leave_mapping();
        self.mapping = Mapping::DEFAULT;
    }

    fn exchange(&mut self, from: Mapping, to: Mapping) {
        for (register, host) in from.pairs() {
            if to.get(register) != Some(host) {
                self.asm.mov_store(Size::B64, home(register), host);
            }
        }
        for (register, host) in to.pairs() {
            if from.get(register) != Some(host) {
                self.asm.mov(Size::B64, host, home(register));
            }
        }
    }
}

impl Exit {
    /// Its unit's code is at `start` of the arena.
    pub(super) fn relocate(&mut self, start: u32) {
        if let Reason::Link(site) = &mut self.reason {
            *site += start;
        }
    }
}
