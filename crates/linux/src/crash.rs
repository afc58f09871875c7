//! What is told of a program that dies of a fault: where, in which function, its registers, and who called whom.

use std::collections::BTreeMap;
use std::path::PathBuf;

use debugger::symbols::{Module, Symbols};
use debugger::unwind::Frame;
use riscv::hart::Hart;

use crate::signal::deliver::Fault;
use crate::space::{AddressSpace, SIZE};

/// The signals that say that the program is wrong.
const NAMES: [(u32, &str); 7] =
    [(4, "SIGILL"), (5, "SIGTRAP"), (6, "SIGABRT"), (7, "SIGBUS"), (8, "SIGFPE"), (11, "SIGSEGV"), (31, "SIGSYS")];

/// The files that are mapped in `space`, as the host lists them; those without symbols are left out.
#[must_use]
pub fn symbols(space: &AddressSpace) -> Symbols {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut files: BTreeMap<PathBuf, Vec<(u64, u64)>> = BTreeMap::new();
    let base = space.translate(0).unwrap_or(0);
    for line in maps.lines() {
        // start-end rights offset device inode path
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(offset)) = (words.next(), words.nth(1)) else { continue };
        let Some(path) = words.nth(2).filter(|path| path.starts_with('/')) else { continue };
        let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
        let Some(start) = range.split('-').next().and_then(number) else { continue };
        let place = start.wrapping_sub(base);
        // The path is the rest of the line, whatever is in it.
        let path = line.find(path).map_or(path, |at| &line[at..]);
        if place < SIZE
            && let Some(offset) = number(offset)
        {
            files.entry(path.into()).or_default().push((place, offset));
        }
    }
    let mut symbols = Symbols::default();
    // A file that is gone, or is no ELF file, names nothing.
    files.iter().filter_map(|(path, places)| Module::open_mapped(path, places).ok()).for_each(|file| symbols.add(file));
    symbols
}

/// What to tell of a thread of which the process dies: nothing if the signal is an ordinary end.
#[must_use]
pub fn report(hart: &Hart, space: &AddressSpace, signal: u32, fault: Option<&Fault>) -> Option<String> {
    let (_, name) = NAMES.iter().find(|(number, _)| *number == signal)?;
    let symbols = symbols(space);
    let frame = Frame { x: std::array::from_fn(|n| hart.x(n.to_le_bytes()[0])), pc: hart.pc() };
    let read = |at, bytes: &mut [u8]| space.copy_in(at, bytes);
    let accessed = fault.filter(|fault| matches!(fault.signal, 7 | 11));
    let accessed = accessed.map_or_else(String::new, |fault| format!(", accessing {:#x}", fault.address));
    Some(format!(
        "isomorph: crash: {name} at {}{accessed}\n{}",
        debugger::crash::address(&symbols, frame.pc),
        debugger::crash::report(&symbols, &frame, &read)
    ))
}
