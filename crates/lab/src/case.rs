//! Many small experiments in one memory image: each sets all registers, runs some code until it traps, and keeps all registers.
//!
//! ```text
//! BASE    runner: for each record: load the state, mret; on a trap: store the state
//! TABLE   page table: maps the gigabyte at BASE to itself, for user mode
//! SLOTS   record | code | memory      one slot for each case, all of one size
//!         record | code | memory
//!         ...
//! ```
//!
//! The image is a bare machine-mode program for the board that qemu calls `virt` and Isomorph has too. It ends by powering the machine off; the
//! results are then in memory, where the records were. So any engine that runs a machine can be compared with any other, by nothing
//! but memory before and memory after.

use machine::address::host_size;
use riscv::isa::{AssembleError, Assembler, Op};

/// Where the image is loaded and entered.
pub const BASE: u64 = 0x8000_0000;
/// Where the page table is.
const TABLE: u64 = BASE + 0x1000;
/// `satp` for user mode that sees memory where it is, but through address translation (Sv39).
pub const IDENTITY: u64 = 8 << 60 | TABLE >> 12;
/// Where the first slot is.
const SLOTS: u64 = BASE + 0x2000;
/// Bytes of a record.
const RECORD: u64 = 0x240;
/// The first byte of a slot's code.
const CODE: u64 = RECORD;

/// Offsets of a record's words, after the integer registers (with the pc in the place of `zero`).
const FLOATS: u64 = 0x100;
const FCSR: u64 = 0x200;
const MSTATUS: u64 = 0x208;
const SATP: u64 = 0x210;
const CAUSE: u64 = 0x218;
const VALUE: u64 = 0x220;

/// `menvcfg`: hardware sets accessed and dirty bits, page-based memory types count, and all cache-block operations are allowed.
const ENVIRONMENT: u64 = 3 << 61 | 0xf << 4;

/// `mstatus` with the floating-point unit on.
pub const FLOAT_ON: u64 = 1 << 13;
/// `mstatus` with the floating-point unit's state changed, and the summary bit that says so.
pub const FLOAT_DIRTY: u64 = 1 << 63 | 3 << 13;
/// `mstatus` bits that make `mret` go to machine mode.
pub const MACHINE: u64 = 3 << 11;
/// `mstatus` bits that make `mret` go to supervisor mode.
pub const SUPERVISOR: u64 = 1 << 11;

const ILLEGAL: u64 = 2;
const BREAKPOINT: u64 = 3;
const LOAD_FAULT: u64 = 5;
const STORE_FAULT: u64 = 7;
const LOAD_PAGE_FAULT: u64 = 13;
const STORE_PAGE_FAULT: u64 = 15;

/// What a program can see of a hart.
#[derive(Clone, PartialEq, Eq)]
pub struct State {
    /// Program counter.
    pub pc: u64,
    /// Integer registers; `x[0]` is zero.
    pub x: [u64; 32],
    /// Floating-point registers.
    pub f: [u64; 32],
    /// Floating-point control and status.
    pub fcsr: u64,
    /// Before: the mode to run in, as `mret` takes it. After: as the trap left it.
    pub mstatus: u64,
    /// Address translation.
    pub satp: u64,
    /// After: why it ended (`mcause`).
    pub cause: u64,
    /// After: `mtval`.
    pub value: u64,
}

impl Default for State {
    /// User mode with the floating-point unit on, all registers zero.
    fn default() -> Self {
        let (x, f) = ([0; 32], [0; 32]);
        Self { pc: 0, x, f, fcsr: 0, mstatus: FLOAT_ON, satp: 0, cause: 0, value: 0 }
    }
}

impl State {
    fn words(&self) -> Vec<(u64, u64)> {
        let integers = (0..).step_by(8).zip(self.x).skip(1);
        let floats = (FLOATS..).step_by(8).zip(self.f);
        let rest = [(0, self.pc), (FCSR, self.fcsr), (MSTATUS, self.mstatus), (SATP, self.satp)];
        integers.chain(floats).chain(rest).chain([(CAUSE, self.cause), (VALUE, self.value)]).collect()
    }

    fn read(record: &[u8]) -> Self {
        let word = |at: u64| {
            let at = host_size(at);
            record.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
        };
        let eight = |i: usize| 8 * i as u64;
        let mut x = std::array::from_fn(|i| word(eight(i)));
        let pc = std::mem::take(&mut x[0]);
        let f = std::array::from_fn(|i| word(FLOATS + eight(i)));
        Self {
            pc,
            x,
            f,
            fcsr: word(FCSR),
            mstatus: word(MSTATUS),
            satp: word(SATP),
            cause: word(CAUSE),
            value: word(VALUE),
        }
    }

    /// The lines in which it differs from `other`: name, value here, value there.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<(String, u64, u64)> {
        use riscv::isa::registers::{FLOAT, INTEGER};
        let mut lines = vec![("pc".to_owned(), self.pc, other.pc)];
        lines.extend((0..32).map(|i| (INTEGER[i].to_owned(), self.x[i], other.x[i])));
        lines.extend((0..32).map(|i| (FLOAT[i].to_owned(), self.f[i], other.f[i])));
        lines.push(("fcsr".into(), self.fcsr, other.fcsr));
        lines.push(("mstatus".into(), self.mstatus, other.mstatus));
        lines.push(("satp".into(), self.satp, other.satp));
        lines.push(("mcause".into(), self.cause, other.cause));
        lines.push(("mtval".into(), self.value, other.value));
        lines.retain(|(_, here, there)| here != there);
        lines
    }
}

/// Where the parts of a slot are.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    record: u64,
    /// Where the code begins.
    pub code: u64,
    /// Where the memory begins; a multiple of 64.
    pub memory: u64,
}

/// What a case left.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The registers.
    pub state: State,
    /// Its memory.
    pub memory: Vec<u8>,
    /// The bits at its last pc.
    pub word: u32,
}

impl Outcome {
    /// Changes what qemu left where that differs from `self` only in what the architecture leaves open, or by a known mistake of
    /// qemu 7.2. What differs then is a difference.
    pub fn settle(&self, theirs: &mut Self) {
        let (ours, qemu) = (&self.state, &mut theirs.state);
        // At a breakpoint `mtval` is the pc or zero.
        if ours.cause == BREAKPOINT && ours.value == ours.pc && qemu.value == 0 {
            qemu.value = ours.value;
        }
        // At an illegal instruction it is the instruction or zero, which qemu does not always know.
        let length = if self.word & 3 == 3 { u32::MAX } else { 0xffff };
        if ours.cause == ILLEGAL && ours.value == u64::from(self.word & length) && qemu.value == 0 {
            qemu.value = ours.value;
        }
        // A misaligned access may be made in pieces, one of which faults.
        let access = matches!(ours.cause, LOAD_FAULT | STORE_FAULT | LOAD_PAGE_FAULT | STORE_PAGE_FAULT);
        if access && ours.value.abs_diff(qemu.value) < 8 {
            qemu.value = ours.value;
        }
        // An atomic operation that may not happen is a store to us, as the manual says, and a load to qemu.
        let atomic = riscv::isa::decode(self.word).is_some_and(|i| {
            i.op.line().encoding.is_atomic() && !matches!(i.op, Op::LrW | Op::LrD | Op::ScW | Op::ScD)
        });
        if atomic && matches!(qemu.cause, 4 | 5 | 13) {
            qemu.cause += 2;
        }
        // For that load it has marked the page as accessed already.
        if atomic && ours.cause == STORE_PAGE_FAULT {
            theirs.memory.clone_from(&self.memory);
        }
        let qemu = &mut theirs.state;
        // The state of the floating-point unit may be dirty too often. (qemu forgets it where only flags are written.)
        if ours.mstatus & FLOAT_DIRTY == FLOAT_DIRTY && qemu.mstatus & FLOAT_DIRTY == FLOAT_ON {
            qemu.mstatus |= FLOAT_DIRTY;
        }
    }
}

/// Cases that are run together.
pub struct Batch {
    image: Vec<u8>,
    code_size: u64,
    memory_size: u64,
    count: u64,
}

impl Batch {
    /// An empty batch, for cases of at most `code_size` bytes of code and `memory_size` bytes of memory.
    #[must_use]
    pub fn new(code_size: u64, memory_size: u64) -> Self {
        let (code_size, memory_size) = (code_size.next_multiple_of(64), memory_size.next_multiple_of(64));
        Self { image: vec![0; host_size(SLOTS - BASE)], code_size, memory_size, count: 0 }
    }

    fn slot_size(&self) -> u64 {
        RECORD + self.code_size + self.memory_size
    }

    /// How many cases it has.
    #[must_use]
    pub fn len(&self) -> usize {
        host_size(self.count)
    }

    /// Whether it has no case.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Where case `index` is, or will be.
    #[must_use]
    pub fn place(&self, index: usize) -> Place {
        let record = SLOTS + index as u64 * self.slot_size();
        Place { record, code: record + CODE, memory: record + CODE + self.code_size }
    }

    /// The case whose code `pc` is in.
    #[must_use]
    pub fn index_of(&self, pc: u64) -> Option<usize> {
        let offset = pc.checked_sub(SLOTS)?;
        let (index, inside) = (offset / self.slot_size(), offset % self.slot_size());
        (index < self.count && (CODE..CODE + self.code_size).contains(&inside)).then(|| host_size(index))
    }

    /// Where the next case will be.
    #[must_use]
    pub fn next_place(&self) -> Place {
        self.place(self.len())
    }

    /// Adds a case that begins in `state` (whose pc is usually the place's code).
    ///
    /// # Panics
    /// The code or the memory is larger than [`Self::new`] was told.
    pub fn push(&mut self, state: &State, code: &[u8], memory: &[u8]) {
        assert!(code.len() as u64 <= self.code_size && memory.len() as u64 <= self.memory_size, "a slot overflows");
        let place = self.next_place();
        self.count += 1;
        self.image.resize(host_size(SLOTS - BASE + self.count * self.slot_size()), 0);
        for (offset, word) in state.words() {
            self.write(place.record + offset, &word.to_le_bytes());
        }
        self.write(place.code, code);
        self.write(place.memory, memory);
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let at = host_size(at - BASE);
        self.image[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The image: load it at [`BASE`] and enter it there in machine mode. The same bytes of memory afterwards are what
    /// [`Self::outcome`] wants.
    ///
    /// # Panics
    /// The runner does not assemble, which its test excludes.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        let runner = runner(SLOTS, self.slot_size(), self.count).expect("the runner assembles");
        let mut image = self.image.clone();
        assert!(runner.len() as u64 <= TABLE - BASE, "the runner has a page");
        image[..runner.len()].copy_from_slice(&runner);
        // A leaf of the highest level, dirty, accessed, user, executable, writable, readable and valid.
        let entry = host_size(TABLE - BASE + (BASE >> 30) * 8);
        image[entry..entry + 8].copy_from_slice(&(BASE >> 12 << 10 | 0xdf).to_le_bytes());
        image
    }

    /// What case `index` left in `memory`, which begins at [`BASE`].
    #[must_use]
    pub fn outcome(&self, memory: &[u8], index: usize) -> Outcome {
        let place = self.place(index);
        let part = |at: u64, length: u64| {
            let at = host_size(at - BASE);
            memory.get(at..at + host_size(length)).unwrap_or_default()
        };
        let state = State::read(part(place.record, RECORD));
        let inside = (BASE..BASE + memory.len() as u64 - 3).contains(&state.pc);
        let word = if inside { part(state.pc, 4).try_into().map_or(0, u32::from_le_bytes) } else { 0 };
        Outcome { state, memory: part(place.memory, self.memory_size).to_vec(), word }
    }
}

/// The program that runs the cases. It keeps the address of the record in `t6`, and in `mscratch` while a case runs.
fn runner(records: u64, size: u64, count: u64) -> Result<Vec<u8>, AssembleError> {
    let (t6, ra) = (31, 1);
    let mut a = Assembler::new(BASE);
    let handler = a.label();
    // All traps come here.
    a.load_address(ra, handler);
    a.text("csrrw zero,mtvec,ra");
    a.load_constant(t6, records);
    let finish = a.label();
    a.text("next:");
    a.load_constant(ra, records + size * count);
    a.branch(Op::Bgeu, t6, ra, finish);
    // Everybody may do everything, as far as physical memory protection and counters go; nothing is delegated or enabled.
    a.load_constant(ra, u64::MAX);
    a.text(
        "csrrw zero,pmpaddr0,ra
         csrrw zero,mcounteren,ra
         csrrw zero,scounteren,ra
         addi ra,zero,0x1f
         csrrw zero,pmpcfg0,ra
         csrrwi zero,medeleg,0
         csrrwi zero,mideleg,0
         csrrwi zero,mie,0",
    );
    a.load_constant(ra, ENVIRONMENT);
    a.text("csrrw zero,menvcfg,ra\n csrrw zero,senvcfg,ra");
    a.text(&format!(
        "csrrw zero,mscratch,t6
         ld ra,0(t6)
         csrrw zero,mepc,ra
         ld ra,{MSTATUS}(t6)
         csrrw zero,mstatus,ra
         csrrwi zero,satp,0
         ld ra,{SATP}(t6)
         csrrw zero,satp,ra
         sfence.vma zero,zero
         addi ra,zero,1
         slli ra,ra,13
         csrrs zero,mstatus,ra
         ld ra,{FCSR}(t6)
         csrrw zero,fcsr,ra"
    ));
    for i in 0..32 {
        a.text(&format!("fld f{i},{}(t6)", FLOATS + 8 * i));
    }
    // The unit may be meant to be off; loading the registers has made it dirty.
    a.text(&format!("ld ra,{MSTATUS}(t6)\n csrrw zero,mstatus,ra"));
    for i in 1..32 {
        a.text(&format!("ld x{i},{}(t6)", 8 * i));
    }
    a.text("mret");
    a.align(4);
    a.bind(handler);
    a.text("csrrw t6,mscratch,t6");
    for i in 1..31 {
        a.text(&format!("sd x{i},{}(t6)", 8 * i));
    }
    for (csr, offset) in [("mscratch", 248), ("mstatus", MSTATUS), ("mcause", CAUSE), ("mepc", 0), ("mtval", VALUE)] {
        a.text(&format!("csrrs ra,{csr},zero\n sd ra,{offset}(t6)"));
    }
    a.text("addi ra,zero,1\n slli ra,ra,13\n csrrs zero,mstatus,ra");
    a.text(&format!("csrrs ra,fcsr,zero\n sd ra,{FCSR}(t6)"));
    for i in 0..32 {
        a.text(&format!("fsd f{i},{}(t6)", FLOATS + 8 * i));
    }
    a.load_constant(ra, size);
    a.text("add t6,t6,ra\n jal zero,next");
    a.bind(finish);
    a.load_constant(ra, riscv::map::TEST.start);
    a.load_constant(t6, u64::from(riscv::map::TEST_POWER_OFF));
    // An engine may notice late that the machine is off: where it waits is a fixed number of instructions from here.
    a.text("sw t6,0(ra)\n stay: wfi\n jal zero,stay");
    a.finish()
}
