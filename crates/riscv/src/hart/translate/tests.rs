//! Programs on harts that translate and on harts that interpret: all they leave behind must be equal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use machine::GuestPhysical;
use machine::bus::Bus;
use machine::memory::GuestMemory;

use super::{CodeCache, Options};
use crate::hart::csr::number::{MCAUSE, MEPC, MTVAL};
use crate::hart::{Exit, Hart, HartConfig, HartSignals, TimeSource};
use crate::isa::generate::{Generator, Options as Choice, Random};
use crate::isa::{Instruction, Op, assemble};

pub(super) const RAM: u64 = 0x8000_0000;
pub(super) const DATA: u64 = RAM + 0x8_0000;

struct Still(AtomicU64);
impl TimeSource for Still {
    fn ticks(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything is translated when it is first executed.
pub(super) fn eager() -> Options {
    Options { threshold: 1, code_bytes: 1 << 20, ..Options::default() }
}

/// Everything hot and much that is not becomes a region, and slices end everywhere.
pub(super) fn regions(slice: u32) -> Options {
    Options { samples: 1, slice, ..eager() }
}

pub(super) fn hart(memory: &Arc<GuestMemory>, options: Option<Options>) -> Hart {
    let config = HartConfig { id: 0, hardware_ad_updates: true, monitor_sbi: false };
    let time = Arc::new(Still(AtomicU64::new(0)));
    let mut hart = Hart::new(config, Arc::clone(memory), Arc::new(Bus::new()), time, Arc::new(HartSignals::new()));
    hart.reset(RAM);
    if let Some(options) = options {
        hart.translate_with(CodeCache::new(options).unwrap());
    }
    hart
}

pub(super) fn memory() -> Arc<GuestMemory> {
    Arc::new(GuestMemory::new(GuestPhysical(RAM), 1 << 20).unwrap())
}

/// All that a program leaves behind.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    exit: Exit,
    x: Vec<u64>,
    f: Vec<u64>,
    pc: u64,
    retired: u64,
    csrs: Vec<Option<u64>>,
    data: Vec<u8>,
}

fn run(code: &[u8], options: Option<Options>, times: u32) -> (Left, Hart) {
    let memory = memory();
    memory.write(GuestPhysical(RAM), code).unwrap();
    let mut hart = hart(&memory, options);
    let mut exit = hart.run();
    for _ in 1..times {
        hart.set_pc(RAM);
        exit = hart.run();
    }
    let mut data = vec![0; 0x2000];
    memory.read(GuestPhysical(DATA), &mut data).unwrap();
    let left = Left {
        exit,
        x: (0..32).map(|n| hart.x(n)).collect(),
        f: (0..32).map(|n| hart.f(n)).collect(),
        pc: hart.pc(),
        retired: hart.instructions_retired(),
        csrs: [MCAUSE, MEPC, MTVAL, 1, 3].into_iter().map(|csr| hart.csr(csr)).collect(),
        data,
    };
    (left, hart)
}

/// Runs a program, which ends with `wfi`, in all ways.
fn compare(text: &str) -> Left {
    let code = assemble(text, RAM).unwrap();
    let (expected, _) = run(&code, None, 3);
    let mut all = vec![eager(), Options { threshold: 7, ..eager() }, regions(31), regions(100), regions(257)];
    for name in Options::NAMES {
        let mut options = eager();
        options.set(&format!("no-{name}")).unwrap();
        all.push(options);
    }
    for options in all {
        let (left, hart) = run(&code, Some(options), 3);
        assert_eq!(left, expected, "{options:?}\n{text}");
        let units = hart.translator.cache.as_ref().unwrap().stats().units;
        assert!(units > 0, "{options:?}");
    }
    expected
}

#[test]
fn loops_calls_and_tables() {
    let left = compare(
        "   auipc sp,0x90
            addi a0,zero,15
            jal ra,fib
            auipc t0,0
            addi t0,t0,16
            jalr ra,0(t0)
            jal zero,end
            addi a1,a0,1
            addi a7,zero,100
        again: add a6,a6,a7
            sltu t3,a6,a1
            addi a7,a7,-1
            bne a7,zero,again
            jalr zero,0(ra)
        end: wfi
        fib: addi t0,zero,2
            blt a0,t0,done
            addi sp,sp,-16
            sd ra,0(sp)
            sd a0,8(sp)
            addi a0,a0,-1
            jal ra,fib
            ld t0,8(sp)
            sd a0,8(sp)
            addi a0,t0,-2
            jal ra,fib
            ld t0,8(sp)
            add a0,a0,t0
            ld ra,0(sp)
            addi sp,sp,16
        done: jalr zero,0(ra)",
    );
    assert_eq!((left.exit, left.x[10], left.x[16]), (Exit::Idle, 610, 5050 * 3));
}

#[test]
fn traps_are_precise() {
    // The handler notes where, skips the instruction, and goes on.
    let left = compare(
        "   auipc t0,0
            addi t0,t0,68
            csrrw zero,mtvec,t0
            lui s1,0x80080
            slli s1,s1,32
            srli s1,s1,32
            addi s2,zero,5
        again: addi a0,a0,1
            ld a1,0(zero)
            addi a0,a0,2
            sd a0,8(zero)
            addi a0,a0,3
            ecall
            addi s2,s2,-1
            bne s2,zero,again
            wfi
            wfi
            csrrs t1,mepc,zero
            csrrs t2,mcause,zero
            add s3,s3,t1
            slli s3,s3,1
            add s3,s3,t2
            addi t1,t1,4
            csrrw zero,mepc,t1
            mret",
    );
    assert_eq!((left.exit, left.x[10]), (Exit::Idle, 3 * 30));
}

/// Straight lines of random instructions in a loop, with floating point on and traps skipped.
#[test]
fn random_programs() {
    const HEAD: &str = "
            auipc t0,0
            addi t0,t0,36
            csrrw zero,mtvec,t0
            lui t1,0x6
            csrrs zero,mstatus,t1
            auipc s0,0x80
            addi s0,s0,0x7f0
            addi s1,s0,-1024
            jal zero,start
            csrrs t0,mepc,zero
            lhu t1,0(t0)
            andi t1,t1,3
            addi t1,t1,-3
            sltu t1,zero,t1
            slli t1,t1,1
            sub t1,zero,t1
            addi t1,t1,4
            add t0,t0,t1
            csrrw zero,mepc,t0
            mret
        start: addi gp,zero,5";
    // Not the bases, nor the counter.
    let choice = Choice::straight_line(vec![8, 9], !(1 << 8 | 1 << 9 | 1 << 3));
    let generator = Generator::new(choice).unwrap();
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let mut code = assemble(HEAD, RAM).unwrap();
        let again = code.len();
        for _ in 0..random.below(120) + 1 {
            let mut instruction = generator.next(&mut random);
            if instruction.op == Op::FenceI {
                continue;
            }
            // Half of the time all is on few registers.
            if random.one_in(2) && instruction.length == 4 && instruction.rd > 9 {
                instruction.rd = 10 + instruction.rd % 4;
            }
            let word = instruction.encode().unwrap().to_le_bytes();
            code.extend_from_slice(&word[..usize::from(instruction.length)]);
        }
        let offset = i32::try_from(again).unwrap() - i32::try_from(code.len()).unwrap() - 8;
        code.extend(assemble("addi gp,gp,-1\nbeq gp,zero,out\njal zero,out\nout: wfi", 0).unwrap());
        let back = Instruction { rd: 0, imm: offset, ..Instruction::new(Op::Jal) };
        let at = code.len() - 8;
        code[at..at + 4].copy_from_slice(&back.encode().unwrap().to_le_bytes());
        let (expected, _) = run(&code, None, 2);
        for options in [
            eager(),
            Options { threshold: 3, ..eager() },
            Options { constants: false, fusion: false, ..eager() },
            regions(67),
            regions(150),
        ] {
            let (left, _) = run(&code, Some(options), 2);
            assert_eq!(left, expected, "seed {seed}, {options:?}");
        }
        assert_eq!(expected.exit, Exit::Idle, "seed {seed}");
    }
}

/// Calls deeper than the return stack, coroutines whose returns do not match, and tables of functions in several pages.
#[test]
fn returns_that_do_not_match() {
    let left = compare(
        "   auipc sp,0x90
            lui s0,0x3
            jal ra,deep
            addi s1,zero,2000
            auipc s2,0
            addi s2,s2,48
        swap: jal ra,yield
            addi a1,a1,1
            jal ra,leaf
            addi s1,s1,-1
            bne s1,zero,swap
            wfi
        yield: addi a2,a2,1
            add t0,s2,zero
            add s2,ra,zero
            jalr zero,0(t0)
            addi zero,zero,0
        other: addi a3,a3,1
            add s3,ra,zero
            jal ra,leaf
            add a4,a4,a3
            jal ra,yield
            jal zero,other
        leaf: addi a5,a5,1
            jalr zero,0(ra)
        deep: addi sp,sp,-16
            sd ra,0(sp)
            addi s0,s0,-1
            beq s0,zero,bottom
            jal ra,deep
            addi a0,a0,1
        bottom: ld ra,0(sp)
            addi sp,sp,16
            jalr zero,0(ra)",
    );
    assert_eq!(left.exit, Exit::Idle);
}

/// A call that ends its page, to another page: the return goes on in the next.
#[test]
fn a_call_at_the_end_of_a_page() {
    let nops = "addi t6,t6,1\n".repeat(1018);
    let left = compare(&format!(
        "   lui s1,1
        {nops}
            addi s1,s1,-1
            jal zero,last
        leaf: addi a0,a0,1
            jalr zero,0(ra)
        last: jal ra,leaf
            jal ra,leaf
            bne s1,zero,far
            wfi
        far: addi a1,a1,1
            addi s1,s1,-1
            auipc ra,0
            jalr zero,-24(ra)"
    ));
    assert_eq!(left.exit, Exit::Idle);
    assert_eq!(left.x[11], 3 * 4095);
}

/// Nested loops over many registers, with calls inside: regions exchange registers at their edges.
#[test]
fn regions_have_their_own_registers() {
    let text = "
            auipc s0,0x80
            addi s2,zero,40
        outer: addi s3,zero,9
        inner: add s4,s4,s3
            xor s5,s4,s2
            add t3,t3,s5
            sltu t4,t3,s4
            add t5,t5,t4
            sd t3,0(s0)
            lw t6,4(s0)
            add s6,s6,t6
            andi s7,s6,255
            beq s7,s3,odd
        even: addi s3,s3,-1
            bne s3,zero,inner
            jal ra,leaf
            addi s2,s2,-1
            bne s2,zero,outer
            wfi
        odd: addi s8,s8,1
            fence
            jal zero,even
        leaf: add a0,a0,s6
            addi a1,a1,1
            jalr zero,0(ra)";
    let left = compare(&text.replace("fence\n", "fence rw,rw\n"));
    assert_eq!((left.exit, left.x[11]), (Exit::Idle, 120));
    let code = assemble(&text.replace("fence\n", "fence rw,rw\n"), RAM).unwrap();
    let (_, hart) = run(&code, Some(regions(57)), 3);
    assert!(hart.translator.cache.as_ref().unwrap().regions_count() > 0, "a region was made");
}

/// What is translated is dropped when the arena is full, and made anew.
#[test]
fn a_tiny_arena_is_emptied_again_and_again() {
    let mut text = String::from("lui s1,1\nagain: addi s1,s1,-1\n");
    for n in 0..200 {
        text += &format!("addi a0,a0,{n}\nbeq a0,zero,next{n}\nadd a1,a1,a0\nnext{n}: xor a2,a2,a1\n");
    }
    text += "bne s1,zero,more\nwfi\nmore: jal zero,again";
    let code = assemble(&text, RAM).unwrap();
    let (expected, _) = run(&code, None, 1);
    let (left, hart) = run(&code, Some(Options { code_bytes: 16 << 10, ..regions(300) }), 1);
    assert_eq!(left, expected);
    assert!(hart.translator.cache.as_ref().unwrap().stats().flushes > 2);
}

/// A hot loop of one block becomes a region once, not again at each sample.
#[test]
fn a_loop_of_one_block_is_translated_twice_at_most() {
    let code = assemble("lui s1,16\nagain: addi s1,s1,-1\nadd a0,a0,s1\nbne s1,zero,again\nwfi", RAM).unwrap();
    let (_, hart) = run(&code, Some(regions(100)), 1);
    let units = hart.translator.cache.as_ref().unwrap().stats().units;
    assert!(units <= 8, "{units} units");
}

/// Flags read, written, and saved around comparisons, with numbers and NaNs of both kinds.
#[test]
fn flags_are_read_and_written() {
    let left = compare(
        "   lui t1,0x6
            csrrs zero,mstatus,t1
            addi s0,zero,30
            addi t2,zero,1
            fcvt.d.w fs0,t2
            addi t2,zero,-1
            fcvt.d.w fs1,t2
            fsqrt.d fs2,fs1
            lui t3,0x7ff40
            slli t3,t3,32
            fmv.d.x fs3,t3
            csrrw zero,fflags,zero
        again: andi t4,s0,1
            csrrw t5,fflags,t4
            add s2,s2,t5
            csrrs a4,fflags,zero
            flt.d a5,fs1,fs0
            csrrw zero,fflags,a4
            add s3,s3,a5
            csrrs a4,fflags,zero
            fle.d a5,fs2,fs0
            csrrw zero,fflags,a4
            add s3,s3,a5
            csrrs a4,fflags,zero
            feq.d a5,fs3,fs3
            csrrw zero,fflags,a4
            add s3,s3,a5
            add s4,s4,a4
            csrrs a6,fflags,zero
            add s5,s5,a6
            fdiv.d fs4,fs0,fs3
            csrrs a6,fflags,zero
            add s6,s6,a6
            addi s0,s0,-1
            bne s0,zero,again
            wfi",
    );
    assert_eq!((left.exit, left.x[19] % 30), (Exit::Idle, 0));
    assert!(left.x[22] > left.x[21], "{:?}", left.x);
}

/// Reservations that are kept, lost, of another size, and of another place.
#[test]
fn load_reserved_and_store_conditional() {
    let left = compare(
        "   auipc s0,0x80
            addi s1,zero,60
        again: lr.w a0,(s0)
            addi a0,a0,3
            sc.w a1,a0,(s0)
            add s2,s2,a1
            lr.d a2,(s0)
            sc.w a1,a2,(s0)
            add s3,s3,a1
            sc.w a1,a2,(s0)
            add s3,s3,a1
            addi s4,s0,8
            lr.d a2,(s0)
            sc.d a1,a2,(s4)
            add s5,s5,a1
            lr.d a3,(s4)
            xori a3,a3,-1
            sd a3,8(s0)
            sc.d a1,a3,(s4)
            add s6,s6,a1
            lr.w.aqrl t0,(s4)
            sub t0,t0,s1
            sc.w.rl zero,t0,(s4)
            lr.d s4,(s4)
            add s7,s7,s4
            addi s1,s1,-1
            bne s1,zero,again
            wfi",
    );
    assert_eq!((left.exit, left.x[18], left.x[19], left.x[21], left.x[22]), (Exit::Idle, 0, 360, 180, 180));
}

/// Accesses near each other, in one page and in two, forwards and backwards, with a base that changes.
#[test]
fn groups_of_accesses_in_one_page_and_in_two() {
    let left = compare(
        "   lui s0,0x80081
            slli s0,s0,32
            srli s0,s0,32
            addi s0,s0,-48
            addi s1,zero,80
        again: sd s1,8(s0)
            sw s1,-4(s0)
            ld a0,5(s0)
            sb a0,33(s0)
            add s2,s2,a0
            lhu a1,32(s0)
            lb a2,-1(s0)
            add s2,s2,a1
            ld a3,0(s0)
            add s2,s2,a2
            sd s2,24(s0)
            xor s3,s3,a3
            addi a4,s0,400
            lw a5,400(s0)
            sw s3,0(a4)
            add s3,s3,a5
            ld a4,-400(a4)
            add s3,s3,a4
            addi s0,s0,1
            addi s1,s1,-1
            bne s1,zero,again
            wfi",
    );
    assert_eq!(left.exit, Exit::Idle);
}

/// Accesses to registers go on in the unit, unless an interrupt is due or they trap.
#[test]
fn control_registers_do_not_end_a_unit() {
    let left = compare(
        "   auipc t0,0
            addi t0,t0,92
            csrrw zero,mtvec,t0
            addi s1,zero,50
            addi t1,zero,2
        again: csrrs a0,minstret,zero
            add s2,s2,a0
            csrrw a1,mscratch,s1
            add s3,s3,a1
            csrrsi a2,mstatus,8
            add s4,s4,a2
            csrrw zero,mip,t1
            csrrs zero,mie,t1
            sfence.vma zero,zero
            addi s5,s5,1
            csrrs a3,0x7c0,zero
            csrrci a4,mstatus,8
            csrrs a5,minstret,zero
            add s6,s6,a5
            addi s1,s1,-1
            bne s1,zero,again
            wfi
            wfi
            csrrs a6,mcause,zero
            xor s7,s7,a6
            slli s7,s7,1
            blt a6,zero,interrupt
            csrrs a6,mepc,zero
            addi a6,a6,4
            csrrw zero,mepc,a6
            mret
        interrupt: addi s8,s8,1
            csrrwi zero,mie,0
            mret",
    );
    assert_eq!((left.exit, left.x[21], left.x[24]), (Exit::Idle, 150, 150));
}

/// Parts of operations that are folded, in any order, with accesses between, and with results that somebody sees or not.
#[test]
fn folded_operations() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut text =
            String::from("auipc s0,0x80\naddi s1,zero,7\nadd a0,s0,zero\nxori a1,s0,-1\nagain: addi a2,a2,-77\n");
        for _ in 0..random.below(60) + 4 {
            let mut register = || *random.choose(&["a0", "a1", "a2", "a3", "t3", "s5"]);
            let (d, a, b) = (register(), register(), register());
            let bits = 1 + random.below(31);
            text += &match random.below(16) {
                0 => format!("slli {d},{a},{}", 1 + random.below(3)),
                1 => format!("slli {d},{a},32\nsrli {b},{d},{}", 27 + random.below(10)),
                2 => format!("slli {d},{a},48\nsrli {d},{d},48"),
                3 => format!("slli {d},{a},56\nsrai {d},{d},56"),
                4 => format!("slli {d},{a},48\nsrai {b},{d},48"),
                5 | 6 => format!("add {d},{a},{b}"),
                7 => format!("xori {d},{a},-1"),
                8 => format!("and {d},{a},{b}"),
                9 => format!("srliw {d},{a},{bits}\nslliw {b},{a},{}", 32 - bits),
                10 => format!("slli {d},{a},{bits}\nsrli {b},{a},{}", 64 - bits),
                11 | 12 => format!("or {d},{a},{b}"),
                13 => format!("addiw {d},{a},{bits}"),
                14 => format!("xor {d},{a},{b}"),
                _ => format!("sd {d},{}(s0)\nld {a},{}(s0)", 8 * (bits & 7), 8 * random.below(8)),
            };
            text += "\n";
        }
        text += "sd a0,64(s0)\nadd a3,a3,a1\naddi s1,s1,-1\nbne s1,zero,again\nwfi";
        let code = assemble(&text, RAM).unwrap();
        let (expected, _) = run(&code, None, 2);
        for options in [eager(), Options { fusion: false, ..eager() }, regions(43)] {
            let (left, _) = run(&code, Some(options), 2);
            assert_eq!(left, expected, "seed {seed}, {options:?}\n{text}");
        }
    }
}
