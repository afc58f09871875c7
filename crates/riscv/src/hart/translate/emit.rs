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
//! Before that, instructions of a piece that belong together are folded into one ([`super::fold`]), and loads and stores are grouped ([`super::groups`]).
//!
//! To add an instruction, emit it in the module of its chapter; what none of them knows is executed by the interpreter's handler, by a call
//! out of the unit.
//!
//! Rules for the modules:
//! - `rax`, `rcx`, `xmm0` and `xmm1` are free inside one instruction, and `rdx` in those that [`needs_rdx`] says so of; [`Emitter::read`] and [`Emitter::target`] say where guest registers are.
//! - A guest register changes only after everything in the instruction that may fault or call out; then it may be recovered at any host address.
//! - The budget is charged at the head of a piece, where the slice ends if it is used up; in user machines only at the entry of a unit and at the heads of
//!   loops. What leaves early takes a refund ([`Emitter::refund`]).
//! - Host flags live inside one instruction only.

use std::mem::offset_of;
use std::sync::OnceLock;

use codegen::x64::{Alu, Assembler, Cc, Gpr, Label, Mem, Precision, Rm, Size};

use super::flags;
use super::flow::{self, Facts};
use super::fold::{self, Folded};
use super::gather::{Line, Piece, ends_piece, is_called_out, is_left_to_the_interpreter};
use super::groups::{self, Role};
use super::mapping::{BUDGET, Mapping, field, home, home_float, needs_rdx};
use super::options::Options;
use super::packed::{self, Plan};
use super::spots::{self, Spot};
use super::state::HartState;
use super::words::{self, Words};
use super::{atomic, bits, control, crypto, float, integer, memory};
use crate::hart::Hart;
use crate::hart::block::{BlockRef, OwnBlock};
use crate::hart::interpreter::single_block;
use crate::isa::Op;

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
    /// The instruction to interpret, if it is for one.
    bits: u32,
    /// The same as a block, made when it is first needed, as most never are.
    block: OnceLock<OwnBlock>,
}

/// `ecall`.
const ECALL: u32 = 0x73;

impl Exit {
    /// Whether the instruction is a system call, which is called out in user machines only.
    pub(super) fn is_call(&self) -> bool {
        self.bits == ECALL
    }

    /// A block of the one instruction that is to be interpreted.
    pub(crate) fn block(&self) -> BlockRef {
        self.block.get_or_init(|| single_block(self.bits)).get()
    }
}

// SAFETY: nothing of it changes once it is published but what the lock guards; the block's cells are never set, since it has no links.
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
    pub(super) loose: float::Loose,
    pub(super) words: Words,
    /// The guest register that the unit has in `rdx` is in the hart.
    pub(super) rdx_is_lent: bool,
}

/// A unit's code and what belongs to it.
pub(super) struct Emitted {
    pub(super) code: Vec<u8>,
    /// By rising offset; none in a system machine, whose accesses find out for themselves where they lead.
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
    /// Where flat memory ends.
    pub(super) limit: u64,
    is_region: bool,
    /// The piece that the unit is entered at.
    entry: u64,
    /// The assignment inside the unit.
    unit_mapping: Mapping,
    /// The assignment now: the unit's, or on its edges the default.
    pub(super) mapping: Mapping,
    /// The instruction being emitted.
    pub(super) line: Line,
    /// What it is among the accesses around it.
    pub(super) role: Role,
    /// Where it finds its last page, if it looks for that.
    pub(super) spot: Option<u8>,
    /// How many such places the unit has.
    spots_count: usize,
    /// What was charged for it and for those after it in its piece.
    pub(super) refund: i64,
    /// Values of registers, as far as they are the same whenever control comes here.
    known: [Option<u64>; 32],
    /// Places of pieces that the unit jumps back to.
    loops: Vec<u64>,
    /// Heads of the unit's pieces.
    heads: Vec<(u64, Label)>,
    marks: Vec<Mark>,
    /// Which integer registers are words.
    pub(super) words: Words,
    /// How near flat memory the values of registers are.
    pub(super) reach: memory::Reach,
    /// Floating-point operations may be inline in all pieces: the region's entry has looked.
    region_ready: bool,
    /// A register in the hart whose value is in `rax`, too, at this position.
    in_rax: Option<(u8, (usize, usize))>,
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
    flat: Option<u64>,
    options: &Options,
) -> Option<Emitted> {
    let first = pieces.first()?;
    let mut emitter = Emitter {
        asm: Assembler::new(),
        options,
        flat: flat.is_some(),
        limit: flat.unwrap_or(0),
        is_region: kind == Kind::Region,
        entry,
        unit_mapping: mapping,
        mapping,
        line: *first.lines.first()?,
        role: Role::Alone,
        spot: None,
        spots_count: 0,
        refund: 0,
        known: [None; 32],
        loops: pieces.iter().flat_map(super::regions::back_edges).collect(),
        heads: Vec::new(),
        marks: Vec::new(),
        words: Words::default(),
        reach: memory::Reach::default(),
        region_ready: false,
        in_rax: None,
        held: float::Held::new(mapping.vectors().count()),
        exits: Vec::new(),
        cold: Vec::new(),
    };
    for piece in pieces {
        let label = emitter.asm.label();
        emitter.heads.push((piece.place, label));
    }
    let bodies = emitter.bodies(pieces);
    // A block's first instruction is long enough to be patched.
    if kind == Kind::Region {
        emitter.asm.entry();
    }
    emitter.enter_mapping();
    emitter.empty_spots();
    let facts = if kind == Kind::Region { flow::facts(pieces, entry, flat.is_some()) } else { Vec::new() };
    if let Some((piece, facts)) = pieces.iter().zip(&facts).find(|(piece, _)| piece.place == entry) {
        emitter.check_entry(piece, *facts);
    }
    let mut plans = emitter.plans(pieces, &facts);
    if plans.iter().any(Option::is_some) {
        packed::begin(&mut emitter);
    }
    if first.place != entry {
        let head = emitter.head(entry)?;
        emitter.asm.jmp(head);
    }
    for (index, (piece, body)) in pieces.iter().zip(&bodies).enumerate() {
        let next = pieces.get(index + 1).map(|piece| piece.place);
        let facts = facts.get(index).copied().unwrap_or_default();
        let plan = plans.get_mut(index).and_then(Option::take);
        emitter.piece(index, (piece, body), plan, next, facts);
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

/// A piece as it is emitted.
struct Body {
    folded: Folded,
    roles: Vec<Role>,
    spots: Vec<Option<u8>>,
}

impl Emitter<'_> {
    /// What is emitted of each piece.
    fn bodies(&mut self, pieces: &[Piece]) -> Vec<Body> {
        let options = self.options;
        let (may_fold, looks) = (options.fusion && options.bits, options.memory && !self.flat);
        let body = |piece: &Piece| {
            let folded = if may_fold { fold::fold(&piece.lines) } else { fold::nothing(&piece.lines) };
            let roles = if looks && options.groups { groups::roles(&folded.lines, options.float) } else { Vec::new() };
            Body { folded, roles, spots: Vec::new() }
        };
        let mut bodies: Vec<Body> = pieces.iter().map(body).collect();
        if looks && options.spots && self.is_region {
            let parts: Vec<_> = bodies.iter().map(|body| (&body.folded.lines[..], &body.roles[..])).collect();
            let all = spots::choose(pieces, &parts);
            self.spots_count = all.iter().flatten().flatten().count();
            for (body, spots) in bodies.iter_mut().zip(all) {
                body.spots = spots;
            }
        }
        bodies
    }

    /// How pieces can be done several iterations at once.
    fn plans(&self, pieces: &[Piece], facts: &[Facts]) -> Vec<Option<Plan>> {
        if !(self.options.packed && self.options.memory && self.flat) {
            return Vec::new();
        }
        let plan = |(piece, facts): (&Piece, &Facts)| {
            let plan = packed::plan(piece, &self.unit_mapping, facts.boxed)?;
            (self.region_ready || !plan.computes()).then_some(plan)
        };
        pieces.iter().zip(facts).map(plan).collect()
    }

    /// Control comes into the unit, which knows no last pages then.
    pub(super) fn empty_spots(&mut self) {
        for spot in 0..self.spots_count {
            self.asm.mov_store_imm(Size::B64, memory::spot(spot, offset_of!(Spot, size)), 0);
        }
    }

    /// Where a region is entered: the facts that its entry piece begins with must hold. If one does not, an instruction of the piece will trap.
    fn check_entry(&mut self, piece: &Piece, facts: Facts) {
        let has_float = self.options.float && piece.lines.iter().any(|line| float::is_inline(&line.instruction));
        if facts == Facts::default() && !has_float {
            return;
        }
        self.line = piece.lines[0];
        let (out, trap) = (self.asm.label(), self.asm.label());
        self.asm.alu_imm(Alu::Cmp, Size::B64, BUDGET, 1);
        self.asm.jcc(Cc::L, out);
        self.cold_exit(out, Reason::Budget, piece.place, 0);
        self.refund = 0;
        self.cold(move |emitter| {
            emitter.asm.bind(trap);
            emitter.leave_to_interpreter();
        });
        if has_float {
            float::check_ready(self, trap);
            self.region_ready = true;
        }
        for register in (0..32).filter(|register| facts.near >> register & 1 != 0) {
            memory::check_near(self, register, trap);
        }
        for register in (0..32).filter(|register| facts.boxed >> register & 1 != 0) {
            float::check_boxed(self, register, trap);
        }
    }

    fn piece(
        &mut self,
        index: usize,
        (piece, body): (&Piece, &Body),
        plan: Option<Plan>,
        next: Option<u64>,
        facts: Facts,
    ) {
        let label = self.heads[index].1;
        if self.loops.contains(&piece.place) {
            self.asm.align(LOOP_ALIGNMENT, 0);
        }
        self.asm.bind(label);
        self.known = [None; 32];
        self.held.begin(facts.boxed, self.region_ready);
        self.reach.begin(facts.near);
        self.words = Words::default();
        self.line = piece.lines[0];
        if let Some(plan) = plan {
            self.refund = 0;
            self.mark();
            packed::emit(self, plan);
        }
        let count = i32::try_from(piece.lines.len()).unwrap_or(i32::MAX);
        self.refund = count.into();
        self.mark();
        if self.asm.offset() == 0 {
            self.asm.alu_imm_long(Alu::Sub, BUDGET, count);
        } else {
            self.asm.alu_imm(Alu::Sub, Size::B64, BUDGET, count);
        }
        // A program's slices may end a little later: somewhere in each round of control.
        if !self.flat || piece.place == self.entry || self.loops.contains(&piece.place) {
            let out = self.asm.label();
            self.asm.jcc(Cc::L, out);
            self.cold_exit(out, Reason::Budget, piece.place, count.into());
        }
        let Folded { lines, counts } = &body.folded;
        let mut lines = lines.as_slice();
        let mut at = 0;
        while let [line, rest @ ..] = lines {
            self.line = *line;
            self.role = body.roles.get(at).copied().unwrap_or_default();
            self.spot = body.spots.get(at).copied().flatten();
            self.mark();
            if ends_piece(&line.instruction) {
                self.settle();
                self.refund -= 1;
                if is_left_to_the_interpreter(&line.instruction) {
                    self.refund += 1;
                    // Such an instruction might switch floating point off, or change the rounding mode, which the entry of the region has looked at.
                    let goes_on = if line.instruction.op == Op::Ecall { self.flat } else { !self.region_ready };
                    if self.options.system && is_called_out(&line.instruction) && goes_on {
                        self.call_out();
                        if next != Some(line.after()) {
                            self.edge(line.after());
                        }
                    } else {
                        self.leave_to_interpreter();
                    }
                } else {
                    control::emit(self, next);
                    self.mapping = self.unit_mapping;
                }
                return;
            }
            let taken = if self.options.fusion { self.fused(lines) } else { 0 };
            let taken = if taken == 0 {
                self.instruction();
                1
            } else {
                taken
            };
            for line in lines.iter().take(taken) {
                self.reach.follow(&line.instruction);
                if taken > 1 {
                    self.words.follow(&line.instruction);
                }
            }
            self.held.settle();
            lines = lines.get(taken..).unwrap_or(&rest[rest.len()..]);
            self.refund -= counts.iter().skip(at).take(taken).sum::<i64>();
            at += taken;
        }
        self.settle();
        let end = piece.end();
        if next != Some(end) {
            self.edge(end);
        }
    }

    /// Several instructions as one; how many, or none.
    fn fused(&mut self, lines: &[Line]) -> usize {
        match integer::fused(self, lines) {
            0 if self.options.float => flags::fused_compare(self, lines),
            taken => taken,
        }
    }

    /// A piece ends: what comes next knows nothing of values that are not as the guest's.
    fn settle(&mut self) {
        float::tighten_all(self);
        words::widen_all(self);
    }

    /// One instruction that does not end a piece.
    fn instruction(&mut self) {
        let instruction = self.line.instruction;
        let known = integer::known(self, &instruction);
        if self.options.words && words::emit(self, &instruction) {
            self.known[usize::from(instruction.rd & 31)] = known;
            return;
        }
        words::prepare(self, &instruction);
        let lent = self.mapping.in_rdx().filter(|_| needs_rdx(&instruction));
        if let Some(register) = lent {
            words::widen(self, register);
            self.asm.mov_store(Size::B64, home(register), Gpr::Rdx);
            self.mapping.remove(register);
            self.mark();
        }
        let emitted = integer::emit(self, &instruction)
            || memory::emit(self, &instruction)
            || self.options.float && float::emit(self, &instruction)
            || self.options.atomics && atomic::emit(self, &instruction)
            || self.options.bits && (bits::emit(self, &instruction) || crypto::emit(self, &instruction));
        if !emitted {
            self.call_out();
            self.held.begin(0, self.region_ready);
            self.words = Words::default();
        }
        if let Some(register) = lent {
            self.asm.mov(Size::B64, Gpr::Rdx, home(register));
            self.mapping = self.unit_mapping;
        }
        self.words.follow(&instruction);
        if !instruction.op.uses().writes_float() {
            self.known[usize::from(instruction.rd & 31)] = known;
        }
    }

    /// Notes that what follows in the code belongs to the current instruction: where the host's memory management may find that it cannot go on.
    pub(super) fn mark(&mut self) {
        if !self.flat {
            return;
        }
        let host = u32::try_from(self.asm.offset()).unwrap_or(u32::MAX);
        let refund = u32::try_from(self.refund).unwrap_or(0);
        // An instruction without code leaves no trace.
        self.marks.pop_if(|last| last.host == host);
        self.marks.push(Mark {
            host,
            refund,
            place: self.line.place,
            loose: self.held.loose,
            words: self.words,
            rdx_is_lent: self.unit_mapping.in_rdx().is_some() && self.mapping.in_rdx().is_none(),
        });
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
            _ if self.in_rax == Some((register & 31, self.asm.position())) => {
                if to != Gpr::Rax {
                    self.asm.mov(Size::B64, to, Gpr::Rax);
                }
            }
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
            Place::Hart(mem) => {
                self.asm.mov_store(Size::B64, mem, from);
                if from == Gpr::Rax {
                    self.note_rax(register);
                }
            }
            _ => {}
        }
    }

    /// `rax` holds the value of a register that is in the hart, however control comes here.
    pub(super) fn note_rax(&mut self, register: u8) {
        self.in_rax = Some((register & 31, self.asm.position()));
    }

    /// Copies a guest register to another one.
    pub(super) fn move_register(&mut self, to: u8, from: u8) {
        if let Place::Host(host) = self.place(to) {
            self.copy(from, host);
        } else {
            let source = self.read(from, Gpr::Rax);
            self.write(to, source);
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
        let (loose, words) = (self.held.loose, self.words);
        self.cold.push(Box::new(move |emitter| {
            (emitter.line, emitter.refund, emitter.mapping) = (line, refund, mapping);
            (emitter.held.loose, emitter.words) = (loose, words);
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
            let i = emitter.line.instruction;
            if i.op.uses().writes_integer() && matches!(emitter.place(i.rd), Place::Hart(_)) {
                // As the other way.
                emitter.asm.mov(Size::B64, Gpr::Rax, home(i.rd));
            }
            emitter.asm.jmp(back);
        });
        label
    }

    /// The current instruction is executed by the interpreter, here; control goes on behind it unless the instruction traps.
    pub(super) fn call_out(&mut self) {
        self.leave_mapping();
        self.load_exit(Reason::Interpret, self.line.place, self.refund);
        self.asm.call_rm(field(offset_of!(Hart, translator) + offset_of!(HartState, call_out)));
        self.enter_mapping();
    }

    /// The unit ends; the interpreter executes the current instruction.
    pub(super) fn leave_to_interpreter(&mut self) {
        self.leave_mapping();
        self.exit(Reason::Interpret, self.line.place, self.refund);
    }

    /// Leaves translated code. Registers are in the default assignment.
    fn exit(&mut self, reason: Reason, place: u64, refund: i64) {
        self.load_exit(reason, place, refund);
        self.asm.jmp_rm(field(offset_of!(Hart, translator) + offset_of!(HartState, leave)));
    }

    /// The address of a new exit, for the current instruction, into `rax`.
    fn load_exit(&mut self, reason: Reason, place: u64, refund: i64) {
        let (bits, block) = (self.line.bits, OnceLock::new());
        let exit = Box::new(Exit { reason, place, refund, in_region: self.is_region, bits, block });
        self.asm.mov_imm(Gpr::Rax, (&raw const *exit) as u64);
        self.exits.push(exit);
    }

    /// Cold, at `label`: leaves translated code.
    pub(super) fn cold_exit(&mut self, label: Label, reason: Reason, place: u64, refund: i64) {
        self.cold(move |emitter| {
            emitter.asm.bind(label);
            emitter.leave_mapping();
            emitter.exit(reason, place, refund);
        });
    }

    // Edges.

    /// The head of the piece at `place`, if it is one of this unit's.
    pub(super) fn head(&self, place: u64) -> Option<Label> {
        self.heads.iter().find(|(head, _)| *head == place).map(|(_, label)| *label)
    }

    /// Goes on at `place` if `cc` holds, which the code from `compare` on has made the flags say. Everything charged has been executed.
    pub(super) fn branch(&mut self, cc: Cc, place: u64, compare: usize) {
        if let Some(head) = self.head(place) {
            return self.asm.jcc(cc, head);
        }
        let label = self.asm.label();
        // Without registers to exchange, the branch itself can lead to the other unit.
        if self.options.links && self.unit_mapping == *self.links() && (self.flat || place <= 0xfff) {
            let site = self.asm.jcc_patchable(cc, label, compare);
            return self.cold_exit(label, Reason::Link(site), place, 0);
        }
        self.asm.jcc(cc, label);
        self.cold(move |emitter| {
            emitter.asm.bind(label);
            emitter.leave_mapping();
            emitter.link(place);
        });
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
            self.exit(Reason::Find, place, 0);
            return;
        }
        let unlinked = self.asm.label();
        let site = self.asm.jmp_patchable(unlinked);
        self.cold(move |emitter| {
            emitter.asm.bind(unlinked);
            emitter.exit(Reason::Link(site), place, 0);
        });
    }

    /// From the default assignment to the unit's own.
    pub(super) fn enter_mapping(&mut self) {
        self.exchange(*self.links(), self.unit_mapping);
    }

    /// From the unit's own assignment to the default.
    pub(super) fn leave_mapping(&mut self) {
        float::tighten_to_leave(self);
        words::widen_all(self);
        self.exchange(self.mapping, *self.links());
    }

    /// As [`Self::leave_mapping`], and registers are read and written where they then are, until the end of the piece.
    pub(super) fn leave_mapping_for_good(&mut self) {
        self.leave_mapping();
        self.mapping = *self.links();
    }

    /// The assignment between units.
    fn links(&self) -> &'static Mapping {
        Mapping::at_links(self.flat)
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
        if from != to {
            for (register, host) in from.vectors() {
                self.asm.store_scalar(Precision::Double, home_float(register), host);
            }
            for (register, host) in to.vectors() {
                self.asm.load_scalar(Precision::Double, host, home_float(register));
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
