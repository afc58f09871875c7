//! Who called whom: from a thread's registers up its stack.
//!
//! Each step asks the file that the program counter is in for its call-frame information (`.eh_frame`: DWARF 5, section 6.4); where there is none, the
//! frame pointer in `s0` is believed. Stack and tables are the guest's and may be anything: the stack pointer must rise from frame
//! to frame, and there are [`FRAMES_MAX`] of them at most.

use gimli::{BaseAddresses, CfaRule, EhFrame, LittleEndian, RegisterRule, UnwindContext, UnwindSection};
use object::{Object, ObjectSection};

use crate::symbols::{Module, Symbols};

/// A longer backtrace is cut here.
pub const FRAMES_MAX: usize = 64;

/// No function's frame is larger, when it has to be guessed that there is one.
const LEAF_DISTANCE_MAX: u64 = 1 << 20;

const RA: usize = 1;
const SP: usize = 2;
const S0: usize = 8;

/// The registers of a thread that matter to its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The integer registers.
    pub x: [u64; 32],
    /// The program counter.
    pub pc: u64,
}

/// What reads guest memory: false if it is not all memory.
pub type Reader<'a> = &'a dyn Fn(u64, &mut [u8]) -> bool;

/// The program counters of a thread and its callers, innermost first: of callers, those to return to.
#[must_use]
pub fn backtrace(symbols: &Symbols, mut frame: Frame, read: Reader<'_>) -> Vec<u64> {
    let mut trace = vec![frame.pc];
    while trace.len() < FRAMES_MAX {
        // A caller's counter is behind its call, which may be the last instruction of its function.
        let look_at = if trace.len() == 1 { frame.pc } else { frame.pc.wrapping_sub(1) };
        let caller =
            symbols.module(look_at).and_then(|module| by_tables(module, &frame, look_at, read)).or_else(|| {
                if trace.len() == 1 { by_first_frame(symbols, &frame, read) } else { by_pointer(&frame, read) }
            });
        let Some(caller) = caller else { break };
        let rises = caller.x[SP] > frame.x[SP] || (trace.len() == 1 && caller.x[SP] == frame.x[SP]);
        if caller.pc == 0 || !rises || caller.pc == frame.pc && caller.x == frame.x {
            break;
        }
        trace.push(caller.pc);
        frame = caller;
    }
    trace
}

fn word(read: Reader<'_>, at: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    read(at, &mut bytes).then(|| u64::from_le_bytes(bytes))
}

/// The caller's frame by call-frame information.
fn by_tables(module: &Module, frame: &Frame, look_at: u64, read: Reader<'_>) -> Option<Frame> {
    let file = object::File::parse(&*module.bytes).ok()?;
    let section = file.section_by_name(".eh_frame")?;
    let text = file.section_by_name(".text").map_or(0, |section| section.address());
    let mut table = EhFrame::new(section.data().ok()?, LittleEndian);
    table.set_address_size(8);
    let bases = BaseAddresses::default().set_eh_frame(section.address()).set_text(text);
    let mut context = UnwindContext::new();
    let own = look_at.wrapping_sub(module.bias);
    let row = table.unwind_info_for_address(&bases, &mut context, own, EhFrame::cie_from_offset).ok()?;
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => {
            frame.x.get(usize::from(register.0))?.wrapping_add_signed(*offset)
        }
        CfaRule::Expression(_) => return None,
    };
    let mut caller = *frame;
    for number in 1..32_u16 {
        let value = match row.register(gimli::Register(number)) {
            Some(RegisterRule::Offset(offset)) => word(read, cfa.wrapping_add_signed(offset))?,
            Some(RegisterRule::ValOffset(offset)) => cfa.wrapping_add_signed(offset),
            Some(RegisterRule::Register(other)) => *frame.x.get(usize::from(other.0))?,
            // Nobody called the outermost function.
            Some(RegisterRule::Undefined) if usize::from(number) == RA => return None,
            Some(RegisterRule::Expression(_) | RegisterRule::ValExpression(_)) => return None,
            _ => frame.x[usize::from(number)],
        };
        caller.x[usize::from(number)] = value;
    }
    caller.x[SP] = cfa;
    caller.pc = caller.x[RA];
    Some(caller)
}

/// The caller of the innermost function without tables. It may not have made a frame, or never do: then it returns by `ra`, which is where its caller goes
/// on unless it has called others itself.
fn by_first_frame(symbols: &Symbols, frame: &Frame, read: Reader<'_>) -> Option<Frame> {
    let ra = frame.x[RA];
    let function = |at: u64| symbols.module(at)?.symbol(at).map(|(_, offset)| at - offset);
    let from_outside = function(ra).is_some() && function(ra) != function(frame.pc);
    if from_outside {
        let pointer = frame.x[S0];
        return match word(read, pointer.wrapping_sub(8)) {
            Some(saved) if saved == ra => by_pointer(frame, read),
            // A function that calls none saves the pointer alone, in the first place.
            Some(saved) if saved > pointer && saved - pointer < LEAF_DISTANCE_MAX && pointer > frame.x[SP] => {
                let mut caller = Frame { pc: ra, ..*frame };
                (caller.x[SP], caller.x[S0]) = (pointer, saved);
                Some(caller)
            }
            _ => Some(Frame { pc: ra, ..*frame }),
        };
    }
    by_pointer(frame, read).or(Some(Frame { pc: ra, ..*frame }))
}

/// The caller's frame by the frame pointer: the return address is below where it points, and the caller's pointer below that.
fn by_pointer(frame: &Frame, read: Reader<'_>) -> Option<Frame> {
    let pointer = frame.x[S0];
    if !pointer.is_multiple_of(8) || pointer <= frame.x[SP] {
        return None;
    }
    let mut caller = *frame;
    caller.pc = word(read, pointer.wrapping_sub(8))?;
    caller.x[RA] = caller.pc;
    caller.x[S0] = word(read, pointer.wrapping_sub(16))?;
    caller.x[SP] = pointer;
    Some(caller)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash;
    use std::collections::BTreeMap;
    use std::process::Command;

    const SOURCE: &str = "
        volatile long here;
        __attribute__((noinline)) long inner(long n) { here = n; return n + here; }
        __attribute__((noinline)) long middle(long n) { char room[300]; room[n] = 1; return inner(n) + room[n]; }
        long outer(long n) { return middle(n) + 1; }
    ";

    /// The functions above, at their addresses in the file.
    fn module(flags: &[&str]) -> Module {
        let folder = tempfile::tempdir().unwrap();
        let (source, elf) = (folder.path().join("calls.c"), folder.path().join("calls.elf"));
        std::fs::write(&source, SOURCE).unwrap();
        let mut compiler = Command::new("riscv64-linux-gnu-gcc");
        compiler.args(["-g", "-O1", "-static", "-nostdlib", "-no-pie", "-Wl,-e,outer"]).args(flags);
        let output = compiler.arg("-o").args([&elf, &source]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Module::open(&elf, 0).unwrap()
    }

    fn start(module: &Module, name: &str) -> u64 {
        let all = 0x1_0000..0x2_0000;
        all.into_iter().find(|at| module.symbol(*at) == Some((name, 0))).unwrap_or_else(|| panic!("no {name}"))
    }

    /// The frames that the interpreter has, stopped at the beginning of `inner`.
    fn names(module: Module, trace: &[u64]) -> Vec<String> {
        let mut symbols = Symbols::default();
        symbols.add(module);
        trace.iter().map(|pc| crash::address(&symbols, *pc)).collect()
    }

    fn run(flags: &[&str]) -> Vec<String> {
        use machine::GuestPhysical;
        let module = module(flags);
        let memory = std::sync::Arc::new(machine::memory::GuestMemory::new(GuestPhysical(0x1_0000), 1 << 20).unwrap());
        let file = object::File::parse(&*module.bytes).unwrap();
        for segment in object::Object::segments(&file) {
            use object::ObjectSegment;
            if segment.address() >= 0x1_0000 {
                memory.write(GuestPhysical(segment.address()), segment.data().unwrap()).unwrap();
            }
        }
        struct Never;
        impl riscv::hart::TimeSource for Never {
            fn ticks(&self) -> u64 {
                0
            }
        }
        let mut hart = riscv::hart::Hart::new(
            riscv::hart::HartConfig { id: 0, hardware_ad_updates: true, monitor_sbi: false },
            std::sync::Arc::clone(&memory),
            std::sync::Arc::new(machine::bus::Bus::new()),
            std::sync::Arc::new(Never),
            std::sync::Arc::new(riscv::hart::HartSignals::new()),
        );
        hart.reset(start(&module, "outer"));
        hart.set_x(2, 0x10_0000);
        let inner = start(&module, "inner");
        // Into the function, past the place where it makes its frame.
        while hart.pc() != inner {
            assert_eq!(hart.step(), None);
        }
        for _ in 0..3 {
            assert_eq!(hart.step(), None);
        }
        let frame = Frame { x: std::array::from_fn(|n| hart.x(u8::try_from(n).unwrap())), pc: hart.pc() };
        let read = |at, bytes: &mut [u8]| hart.read_virtual(at, bytes) == bytes.len();
        let mut symbols = Symbols::default();
        symbols.add(module);
        let trace = backtrace(&symbols, frame, &read);
        let module = symbols.into_modules().remove(0);
        names(module, &trace)
    }

    #[test]
    fn callers_are_found_by_tables_and_by_frame_pointers() {
        for flags in [
            &["-fomit-frame-pointer", "-fasynchronous-unwind-tables"][..],
            &["-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"],
        ] {
            let names = run(flags);
            assert_eq!(names.len(), 3, "{flags:?}: {names:#?}");
            for (name, function) in names.iter().zip(["inner", "middle", "outer"]) {
                assert!(
                    name.contains(&format!("({function}+0x")) && name.contains("calls.c:"),
                    "{flags:?}: {names:#?}"
                );
            }
        }
    }

    #[test]
    fn a_stack_of_lies_ends() {
        let symbols = Symbols::default();
        let memory: BTreeMap<u64, u64> = (0..4096).map(|n| (n * 8, n * 8 + 64)).collect();
        let read = |at: u64, bytes: &mut [u8]| match memory.get(&at) {
            Some(word) => {
                bytes.copy_from_slice(&word.to_le_bytes());
                true
            }
            None => false,
        };
        let mut frame = Frame { x: [0; 32], pc: 0x1000 };
        frame.x[S0] = 32;
        assert_eq!(backtrace(&symbols, frame, &read).len(), FRAMES_MAX);
        let circle = |_: u64, bytes: &mut [u8]| {
            bytes.fill(0x10);
            true
        };
        assert!(backtrace(&symbols, frame, &circle).len() <= 4);
        frame.x[S0] = !7;
        assert!(backtrace(&symbols, frame, &circle).len() <= 4);
    }

    #[test]
    fn tables_of_lies_end() {
        let good = module(&["-fasynchronous-unwind-tables"]);
        let at = start(&good, "inner");
        let (bytes, read) = (good.bytes.clone(), |_: u64, bytes: &mut [u8]| {
            bytes.fill(1);
            true
        });
        let section = {
            let file = object::File::parse(&*bytes).unwrap();
            file.section_by_name(".eh_frame").unwrap().file_range().unwrap()
        };
        for position in section.0..section.0 + section.1 {
            for value in [0, 0x0f, 0x7f, 0xff] {
                let mut bytes = bytes.clone();
                bytes[usize::try_from(position).unwrap()] = value;
                let mut symbols = Symbols::default();
                symbols.add(Module::parse("calls".into(), bytes, 0).unwrap());
                let trace = backtrace(&symbols, Frame { x: [at; 32], pc: at }, &read);
                assert!(trace.len() <= FRAMES_MAX);
            }
        }
    }
}
