//! Programs in flat memory, whose accesses go where nothing is: translated code must find the same traps as the interpreter, with the same registers, and
//! must not reach anything of this process.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use linux::process::{HostTime, new_cache};
use linux::signal::ThreadSignals;
use linux::signal::host::{Disposition, set_disposition};
use linux::space::{AddressSpace, EXECUTE, PAGE, READ, SIZE, WRITE};
use machine::address::host_size;
use riscv::hart::csr::number::FCSR;
use riscv::hart::trap::{Cause, Trap};
use riscv::hart::user::SystemCalls;
use riscv::hart::{Exit, Hart, HartSignals};
use riscv::isa::generate::{Generator, Options as Choice, Random};
use riscv::isa::{Op, assemble};
use riscv::translate::Options;

/// `MAP_SHARED`.
const SHARED: u64 = 1;
/// `MAP_FIXED`.
const FIXED: u64 = 0x10;
/// `MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED`.
const ANONYMOUS: u64 = 2 | 0x20 | FIXED;
const SIGBUS: u32 = 7;
const SIGFPE: u32 = 8;
const SIGSEGV: u32 = 11;
const CODE: u64 = 0x10_0000;
/// Pages of data with holes before, between and behind.
const DATA: u64 = 0x20_0000;

/// All that a program leaves behind.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    /// Where, which, and what the registers were.
    traps: Vec<(u64, Trap, u64)>,
    x: Vec<u64>,
    f: Vec<u64>,
    fcsr: Option<u64>,
    retired: u64,
    data: Vec<u8>,
}

/// A space with `code` and data.
fn space(code: &[u8]) -> Arc<AddressSpace> {
    let space = Arc::new(AddressSpace::new().unwrap());
    space.map(CODE, 4 * PAGE, READ | WRITE, ANONYMOUS, u64::MAX, 0).unwrap();
    space.write(CODE, code).unwrap();
    space.protect(CODE, 4 * PAGE, READ | EXECUTE).unwrap();
    for page in [DATA, DATA + 2 * PAGE, SIZE - PAGE] {
        space.map(page, PAGE, READ | WRITE, ANONYMOUS, u64::MAX, 0).unwrap();
    }
    space
}

/// Runs the program at [`CODE`] to its `ecall`; instructions that trap are noted and skipped.
fn run(space: &Arc<AddressSpace>, options: Options, registers: &[(u8, u64)]) -> Left {
    for signal in [SIGSEGV, SIGBUS, SIGFPE] {
        set_disposition(signal, Disposition::Record { flags: 0 }).unwrap();
    }
    let signals = Arc::new(HartSignals::new());
    let mut hart = Hart::user(Arc::clone(space) as _, Arc::new(HostTime::new()), Arc::clone(&signals)).unwrap();
    let thread = ThreadSignals::new(Arc::clone(&signals), 0);
    let cache = new_cache(options);
    assert_eq!(cache.is_some(), options.translate);
    if let Some(cache) = &cache {
        hart.translate_with(Arc::clone(cache));
    }
    space.add_hart(Arc::clone(&signals));
    space.enter();
    thread.attach();
    thread.mailbox().set_code(cache.as_ref());
    hart.set_pc(CODE);
    for (register, value) in registers {
        hart.set_x(*register, *value);
    }
    let mut traps = Vec::new();
    loop {
        match hart.run() {
            Exit::Exception(Trap { cause: Cause::UserCall, .. }) => break,
            Exit::Exception(trap) => {
                let registers = (0..32).flat_map(|n| [hart.x(n), hart.f(n)]);
                let sum = registers.fold(0, |sum: u64, value| (sum ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                traps.push((hart.pc(), trap, sum));
                let length = if space.read::<1>(hart.pc()).unwrap()[0] & 3 == 3 { 4 } else { 2 };
                hart.set_pc(hart.pc() + length);
            }
            exit => panic!("{exit:?}"),
        }
    }
    thread.detach();
    space.remove_hart(&signals);
    let data =
        [DATA, DATA + 2 * PAGE, SIZE - PAGE].into_iter().flat_map(|page| space.read::<4096>(page).unwrap_or([0; 4096]));
    Left {
        traps,
        x: (0..32).map(|n| hart.x(n)).collect(),
        f: (0..32).map(|n| hart.f(n)).collect(),
        fcsr: hart.csr(FCSR),
        retired: hart.instructions_retired(),
        data: data.collect(),
    }
}

fn eager() -> Options {
    Options { threshold: 1, code_bytes: 1 << 20, ..Options::default() }
}

/// Runs a program in all ways, each in memory of its own.
fn compare(code: &[u8], registers: &[(u8, u64)], why: &str) -> Left {
    let expected = run(&space(code), Options::interpreter(), registers);
    let regions = |slice| Options { samples: 1, slice, ..eager() };
    let plain = Options { fusion: false, constants: false, ..eager() };
    for options in [eager(), plain, regions(31), regions(101), regions(257)] {
        let left = run(&space(code), options, registers);
        assert_eq!(left, expected, "{why}: {options:?}");
    }
    expected
}

/// A loop over arrays in [`DATA`], several times: a0 is stored to, a1 and a2 are loaded from, a3 is where one of them ends, a4 counts, a5 is an index.
struct ArrayLoop {
    text: String,
    registers: Vec<(u8, u64)>,
}

impl ArrayLoop {
    /// Some loads at random distances, operations on them and on constants, a store.
    fn computing(random: &mut Random) -> Self {
        let single = random.one_in(2);
        let (bytes, s, load, store) = if single { (4, "s", "flw", "fsw") } else { (8, "d", "fld", "fsd") };
        let count = 40 + random.below(900);
        let indexed = random.one_in(2);
        let mut body = String::new();
        let mut numbers = vec!["fa0", "fa1"];
        for (register, pointer) in
            [("fa2", "a1"), ("fa3", "a2"), ("fa4", "a0")].iter().take(1 + host_size(random.below(3)))
        {
            let offset = i64::from(random.one_in(3)) * 4 * (i64::try_from(random.below(9)).unwrap() - 4);
            if indexed {
                body += &format!("add t0,{pointer},a5\n{load} {register},{offset}(t0)\n");
            } else {
                body += &format!("{load} {register},{offset}({pointer})\n");
            }
            numbers.push(register);
        }
        if !indexed && random.one_in(2) {
            body += &format!("addi a1,a1,{bytes}\n");
        } else if !indexed {
            body += &format!("addi a1,a1,{}\naddi a1,a1,{}\n", bytes + 8, -8);
        }
        let mut result = "fa2";
        for target in ["fa5", "fa6", "fa5", "fa7"].iter().take(host_size(random.below(5))) {
            let mut one = || if random.one_in(2) { result } else { *random.choose(&numbers) };
            let (a, b, c) = (one(), one(), one());
            body += &match random.below(9) {
                0 | 1 => format!("fadd.{s} {target},{result},{a}\n"),
                2 => format!("fsub.{s} {target},{a},{result}\n"),
                3 | 4 => format!("fmul.{s} {target},{result},{b}\n"),
                5 => format!("fdiv.{s} {target},{result},{b}\n"),
                6 => format!("fmadd.{s} {target},{a},{result},{c}\n"),
                7 => format!("fnmsub.{s} {target},{result},{b},{c}\n"),
                _ => format!("fsgnj.{s} {target},{result},{result}\n"),
            };
            result = target;
        }
        let (to, end) = if indexed { ("add t1,a0,a5\n", "t1") } else { ("", "a0") };
        body += &format!("{to}{store} {result},0({end})\n");
        if !indexed {
            body += &format!("addi a2,a2,{bytes}\n");
        }
        Self::of(random, &format!("{load} fa0,0(s1)\n{load} fa1,8(s1)\n"), body, bytes, count, indexed)
    }

    /// Integers are copied, or one is stored everywhere.
    fn moving(random: &mut Random) -> Self {
        let size = random.below(4);
        let number = 1 << random.below(4);
        let bytes = number << size;
        let count = 2 + (300 + random.below(3500)) / bytes;
        let suffix = ["b", "h", "w", "d"][host_size(size)];
        let registers = ["t3", "t4", "t5", "t6", "a6", "a7", "s6", "s7"];
        let fills = random.one_in(3);
        let (mut loads, mut stores) = (Vec::new(), Vec::new());
        for (number, register) in registers.iter().enumerate().take(host_size(number)) {
            // Rarely there is a gap, or two change places.
            let mut at = |slips| number + usize::from(slips && random.one_in(60));
            if !fills {
                loads.push(format!("l{suffix} {register},{}(a1)\n", at(true) << size));
            }
            let register = if fills { if at(true) == number { "s8" } else { "zero" } } else { register };
            stores.push(format!("s{suffix} {register},{}(a0)\n", at(true) << size));
        }
        let mut body = String::new();
        if random.one_in(2) {
            if random.one_in(3) {
                stores.reverse();
            }
            body.extend(loads.iter().map(String::as_str).chain(stores.iter().map(String::as_str)));
        } else {
            loads.resize(stores.len(), String::new());
            let mut pairs: Vec<_> = loads.into_iter().zip(stores).map(|(load, store)| load + &store).collect();
            if random.one_in(2) {
                pairs.reverse();
            }
            body.extend(pairs);
        }
        body += &format!("addi a1,a1,{bytes}\n");
        Self::of(random, "addi s8,s1,77\n", body, bytes, count, false)
    }

    /// A loop of `body` over elements of so many bytes.
    fn of(random: &mut Random, before: &str, mut body: String, bytes: u64, count: u64, indexed: bool) -> Self {
        let mut place = || match random.below(9) {
            // Near each other, in any place of a page, and up to where memory ends.
            0 => DATA + 64,
            1 => DATA + 64 + bytes * random.below(12),
            2 => DATA + PAGE - bytes * random.below(12),
            3 => DATA + 3 * PAGE - bytes * (count - random.below(20).min(count)) - random.below(bytes),
            4 => DATA + 64 + random.below(64),
            5 => DATA + random.below(300),
            _ => DATA + 64 + bytes * random.below(8000 / bytes),
        };
        let (a0, a1, a2) = (place(), place(), place());
        if indexed {
            body += &format!("addi a5,a5,{bytes}\n");
        } else {
            body += &format!("addi a0,a0,{bytes}\n");
        }
        body += match random.below(3) {
            0 => "addi a4,a4,-1\nbne a4,zero,again\n",
            1 if indexed => "bltu a5,a3,again\n",
            1 => "blt a0,a3,again\n",
            _ if indexed => "bne a5,a3,again\n",
            _ => "bne a3,a0,again\n",
        };
        let text = format!(
            "   {before}
                addi s0,zero,6
            outer: add a0,s2,zero
                add a1,s3,zero
                add a2,s4,zero
                add a4,s5,zero
                addi a5,zero,0
            again: {body}
                addi s0,s0,-1
                bne s0,zero,outer
                ecall"
        );
        let end = if indexed { bytes * count } else { a0 + bytes * count };
        let registers = vec![(9, DATA), (18, a0), (19, a1), (20, a2), (21, count), (13, end)];
        Self { text, registers }
    }
}

/// Numbers of either format, and what else there may be where numbers are.
fn numbers(random: &mut Random, nans: bool) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < 3 * host_size(PAGE) {
        let small = f64::from(u32::try_from(random.below(1 << 20)).unwrap()) / 1024.0;
        all.extend(
            match random.below(64) {
                0 if nans => f64::NAN.to_bits() | 1,
                1 if nans => (f32::NAN.to_bits() as u64 | 3) << 32 | 0xff80_0001,
                2 => random.bits(),
                3 => 1 << random.below(64),
                n if n % 2 == 0 => small.to_bits(),
                #[allow(clippy::cast_possible_truncation, reason = "it is any number")]
                _ => u64::from((small as f32).to_bits()) << 32 | u64::from((-small as f32 / 3.0).to_bits()),
            }
            .to_le_bytes(),
        );
    }
    all
}

/// Loops that go several iterations at once, over arrays that overlap, end, and hold anything.
#[test]
fn loops_over_arrays() {
    for seed in 0..800 {
        let mut random = Random::new(seed);
        let ArrayLoop { text, registers } =
            if seed % 2 == 0 { ArrayLoop::computing(&mut random) } else { ArrayLoop::moving(&mut random) };
        let code = assemble(&text, CODE).unwrap();
        let nans = random.one_in(4);
        let data = numbers(&mut random, nans);
        let space = || {
            let space = space(&code);
            space.map(DATA + PAGE, PAGE, READ | WRITE, ANONYMOUS, u64::MAX, 0).unwrap();
            space.write(DATA, &data).unwrap();
            if seed % 7 < 2 {
                space.protect(DATA + 2 * PAGE, PAGE, READ).unwrap();
            }
            space
        };
        let expected = run(&space(), Options::interpreter(), &registers);
        for slice in [175, 400, 1000, 4000] {
            let left = run(&space(), Options { samples: 1, slice, ..eager() }, &registers);
            assert_eq!(left, expected, "seed {seed}, slices of {slice}: {text}");
        }
    }
}

/// Addresses near everything that is an edge, and any.
fn address(random: &mut Random) -> u64 {
    let local = 0_u64;
    // An address in flat memory begins somewhere in the host's: these are for the host's own memory if that begins at 2^40, plus its guard.
    let base = (1 << 40) + (1 << 32);
    let edges = [
        DATA,
        DATA + PAGE,
        DATA + 2 * PAGE,
        DATA + 3 * PAGE,
        SIZE - PAGE,
        SIZE,
        0,
        CODE,
        1 << 31,
        1 << 47,
        1 << 63,
        (&raw const local as u64).wrapping_sub(base),
        (address as *const () as u64).wrapping_sub(base),
    ];
    if random.one_in(8) {
        return random.bits();
    }
    random.choose(&edges).wrapping_add(random.below(4096)).wrapping_sub(2048)
}

#[test]
fn wild_addresses_trap_as_in_the_interpreter() {
    // Some that have host registers, one that gives its own away for a while, and some in memory.
    const BASES: [u8; 6] = [8, 9, 12, 15, 18, 28];
    // The counter, and the two that are kept; everything else may become an address.
    let choice = Choice::straight_line(BASES.to_vec(), !(1 << 3 | 1 << 8 | 1 << 9));
    let generator = Generator::new(choice).unwrap();
    for seed in 0..250 {
        let mut random = Random::new(seed);
        let mut code = Vec::new();
        for _ in 0..random.below(80) + 1 {
            let instruction = generator.next(&mut random);
            if instruction.op == Op::FenceI {
                continue;
            }
            let word = instruction.encode().unwrap().to_le_bytes();
            code.extend_from_slice(&word[..usize::from(instruction.length)]);
            if random.one_in(6) {
                let (to, from) = (8 + random.below(8), *random.choose(&BASES));
                let step = i64::try_from(random.below(64)).unwrap() - 32;
                code.extend(assemble(&format!("addi x{to},x{from},{step}"), 0).unwrap());
            }
            if random.one_in(8) {
                // An element of an array, and then the array's first, or what its register holds by then.
                let (array, other, shift) = (*random.choose(&BASES[2..]), *random.choose(&BASES), 1 + random.below(3));
                let to = if random.one_in(2) { array } else { 27 };
                let element = format!(
                    "andi x31,x{other},{}
                     sh{shift}add x30,x31,x{array}
                     add x{to},x{other},zero
                     lbu x29,{}(x30)
                     sb x29,{}(x{array})",
                    random.below(2048),
                    random.below(2048),
                    random.below(2048)
                );
                code.extend(assemble(&element, 0).unwrap());
            }
        }
        let at = code.len() + 8;
        code.extend(assemble("addi gp,gp,-1\nbeq gp,zero,out\njal zero,out\nout: ecall", 0).unwrap());
        let offset = -i32::try_from(at).unwrap();
        let jump = riscv::isa::Instruction { rd: 0, imm: offset, ..riscv::isa::Instruction::new(Op::Jal) };
        code[at..at + 4].copy_from_slice(&jump.encode().unwrap().to_le_bytes());
        let registers = [
            (3, 24),
            (8, address(&mut random)),
            (9, address(&mut random)),
            (12, address(&mut random)),
            (15, random.bits()),
            (18, address(&mut random)),
            (28, address(&mut random)),
        ];
        compare(&code, &registers, &format!("seed {seed}"));
    }
}

/// A pointer that walks from mapped pages into a hole, one that walks off the end of memory, and one that walks below its beginning.
#[test]
fn walks_end_where_memory_does() {
    let code = assemble(
        "again: ld a1,0(a0)
            sd a1,8(a0)
            addi a0,a0,8
            addi a5,a5,1
            lbu a3,-1(a2)
            addi a2,a2,-1
            addi gp,gp,-1
            bne gp,zero,again
            ecall",
        CODE,
    )
    .unwrap();
    for (up, down) in [(DATA + PAGE - 256, DATA + 256), (SIZE - 256, 256), (u64::MAX - 255, SIZE + 256)] {
        let left = compare(&code, &[(3, 200), (10, up), (12, down)], "walk");
        assert!(left.traps.len() > 100, "{:?}", left.traps.len());
        assert_eq!(left.x[15], 200);
    }
}

/// Past the end of a mapped file there is nothing: an access fault, which programs get as SIGBUS.
#[test]
fn a_file_ends_before_its_mapping() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(PAGE).unwrap();
    let code = assemble(
        "again: lw a1,0(a0)
            sw a5,4(a0)
            addi a0,a0,1024
            addi a5,a5,1
            addi gp,gp,-1
            bne gp,zero,again
            ecall",
        CODE,
    )
    .unwrap();
    let mut all = Vec::new();
    for options in [Options::interpreter(), eager(), Options { samples: 1, slice: 20, ..eager() }] {
        let space = space(&code);
        map_shared(&space, &file, 2 * PAGE);
        let left = run(&space, options, &[(3, 8), (10, DATA + PAGE)]);
        assert_eq!(left.traps.len(), 8, "{:x?}", left.traps);
        assert_eq!(left.traps[0].1, Trap::new(Cause::LoadAccess, DATA + 2 * PAGE));
        // A system call that would copy is refused.
        assert!(space.read::<4>(DATA + 2 * PAGE).is_err() && space.read::<4>(DATA + PAGE).is_ok());
        all.push(left.traps);
        // The file shrinks while its page is known.
        file.set_len(0).unwrap();
        let left = run(&space, options, &[(3, 8), (10, DATA + PAGE)]);
        assert_eq!(left.traps.len(), 16, "{:x?}", left.traps);
        file.set_len(PAGE).unwrap();
    }
    assert!(all.iter().all(|traps| *traps == all[0]));
}

fn map_shared(space: &AddressSpace, file: &File, length: u64) {
    let descriptor = file.as_raw_fd().unsigned_abs().into();
    space.map(DATA + PAGE, length, READ | WRITE, SHARED | FIXED, descriptor, 0).unwrap();
}

/// A fence keeps the code that is still what memory holds.
#[test]
fn fences_drop_changed_code_only() {
    let code = |step: i32| {
        assemble(&format!("again: addi a0,a0,{step}\naddi gp,gp,-1\nbne gp,zero,again\necall"), CODE).unwrap()
    };
    let space = space(&code(1));
    let options = eager();
    let cache = new_cache(options).unwrap();
    let signals = Arc::new(HartSignals::new());
    let mut hart = Hart::user(Arc::clone(&space) as _, Arc::new(HostTime::new()), Arc::clone(&signals)).unwrap();
    hart.translate_with(Arc::clone(&cache));
    space.add_hart(signals);
    space.enter();
    let mut sum = 0;
    for (step, dropped) in [(1, false), (1, false), (5, true), (5, false)] {
        let before = cache.stats().invalidated;
        space.protect(CODE, PAGE, READ | WRITE).unwrap();
        space.write(CODE, &code(step)).unwrap();
        space.protect(CODE, PAGE, READ | EXECUTE).unwrap();
        hart.set_pc(CODE);
        hart.set_x(3, 10);
        assert!(matches!(hart.run(), Exit::Exception(_)));
        assert_eq!(cache.stats().invalidated > before, dropped);
        sum += 10 * u64::try_from(step).unwrap();
        assert_eq!(hart.x(10), sum);
    }
    // Code that may no longer be executed is gone.
    space.protect(CODE, PAGE, READ).unwrap();
    hart.set_pc(CODE);
    assert_eq!(hart.run(), Exit::Exception(Trap::new(Cause::FetchPage, CODE)));
}

/// Flags that are read often are watched: each operation that accrues another one must still be found out, whenever it comes.
#[test]
fn accrued_flags_are_seen_at_once() {
    let tiny = f64::MIN_POSITIVE;
    let signaling = 0x7ff4_0000_0000_0000;
    let numbers = [1.5, 1.0 / 3.0, 1e300, tiny, tiny * 0.5, 0.25, 0.0, -2.0, f64::INFINITY, f64::NAN];
    let numbers = numbers.into_iter().map(f64::to_bits).chain([signaling, f64::from_bits(1).to_bits()]);
    // s4 to s11 and t3 to t6.
    let registers: Vec<(u8, u64)> = (20..32).zip(numbers).collect();
    let operations = [
        "fadd.d fa4,fa2,fa3",
        "fsub.d fa4,fa2,fa2",
        "fmul.d fa4,fa2,fa3",
        "fdiv.d fa4,fa2,fa3",
        "fsqrt.d fa4,fa2",
        "fmadd.d fa4,fa2,fa3,fa1",
        "fcvt.s.d fa4,fa2",
        "fcvt.w.d a1,fa2,rtz",
        "fcvt.l.d a1,fa3",
        "flt.d a1,fa2,fa3",
        "feq.d a1,fa2,fa3",
        "fmax.d fa4,fa2,fa3",
        "csrrs t1,fflags,zero\nfle.d a1,fa2,fa3\ncsrrw zero,fflags,t1",
        "csrrw zero,fflags,a2",
    ];
    let mut random = Random::new(71);
    for round in 0..12 {
        let mut text =
            String::from("fmv.d.x fa0,s4\nfmv.d.x fa1,s5\naddi a2,zero,9\naddi a3,zero,6\nagain: addi a3,a3,-1\n");
        for part in 0..9 {
            if random.one_in(2) {
                text += "csrrw zero,fflags,zero\n";
            }
            let count = if random.one_in(4) { 3 } else { 1400 };
            let (a, b) = (20 + random.below(12), 20 + random.below(12));
            let operation = random.choose(&operations);
            text += &format!(
                "addi t0,zero,{count}\nloop{part}: csrrs t1,fflags,zero\nflt.d t2,fa0,fa1\ncsrrw zero,fflags,t1\nadd s2,s2,t2\naddi t0,t0,-1\nbne t0,zero,loop{part}\n\
                 fmv.d.x fa2,x{a}\nfmv.d.x fa3,x{b}\n{operation}\ncsrrs t1,fflags,zero\nslli t2,s3,5\nadd s3,s3,t2\nadd s3,s3,t1\nadd s3,s3,a1\n"
            );
        }
        let left = compare(
            &assemble(&(text + "bne a3,zero,again\necall"), CODE).unwrap(),
            &registers,
            &format!("round {round}"),
        );
        assert!(left.traps.is_empty() && left.x[19] != 0);
    }
}

/// Answers to system calls by their numbers.
struct Answers(Arc<HartSignals>);

impl SystemCalls for Answers {
    fn call(&self, number: u64, [a, b, .., f]: [u64; 6]) -> Option<i64> {
        match number {
            1 => Some((a + 2 * b + f).cast_signed()),
            2 => {
                self.0.request_attention();
                Some(7)
            }
            3 => Some(-512),
            _ => None,
        }
    }
}

/// Runs a loop of system call `number`: how often runs ended for it, and what came of it.
fn calls_in_a_loop(number: u64, options: Options) -> (u64, Vec<u64>) {
    let code = "again: addi a0,gp,0\naddi a1,gp,1\necall\nadd s3,s3,a0\naddi gp,gp,-1\nbne gp,zero,again\naddi a7,zero,9\necall";
    let space = space(&assemble(code, CODE).unwrap());
    let signals = Arc::new(HartSignals::new());
    let mut hart = Hart::user(Arc::clone(&space) as _, Arc::new(HostTime::new()), Arc::clone(&signals)).unwrap();
    hart.translate_with(new_cache(options).unwrap());
    hart.answer_calls_with(Arc::new(Answers(Arc::clone(&signals))));
    space.add_hart(signals);
    space.enter();
    for register in 1..32 {
        hart.set_x(register, u64::from(register) << 33);
    }
    hart.set_x(17, number);
    hart.set_x(3, 100);
    hart.set_pc(CODE);
    let mut ended = 0;
    loop {
        match hart.run() {
            Exit::Exception(Trap { cause: Cause::UserCall, .. }) => {
                ended += 1;
                if hart.x(17) == 9 {
                    assert_eq!((hart.pc(), hart.take_answer()), (CODE + 28, None));
                    return (ended, (0..32).map(|n| hart.x(n)).chain([hart.instructions_retired()]).collect());
                }
                assert_eq!(hart.pc(), CODE + 8);
                let answer = hart.take_answer();
                let answer = answer.or_else(|| {
                    Answers(Arc::clone(hart.signals())).call(number, [hart.x(10), hart.x(11), 0, 0, 0, hart.x(15)])
                });
                hart.set_x(10, answer.unwrap_or(3).cast_unsigned());
                hart.set_pc(CODE + 12);
            }
            Exit::Attention => {}
            exit => panic!("{exit:?}"),
        }
    }
}

/// Translated code goes on behind a system call that is answered, unless someone wants the hart, or the call is to be looked at.
#[test]
fn system_calls_are_answered_inside_of_runs() {
    for regions in [true, false] {
        for number in 1..=4 {
            let slow = Options { system: false, regions, ..eager() };
            let (wanted, fast) =
                (calls_in_a_loop(number, slow), calls_in_a_loop(number, Options { regions, ..eager() }));
            assert_eq!(wanted.0, 101);
            assert_eq!(wanted.1, fast.1, "system call {number}");
            assert!(if number == 1 { fast.0 < 20 } else { fast.0 == 101 }, "{} runs for system call {number}", fast.0);
        }
    }
}
