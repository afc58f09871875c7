//! What is told of a thread that cannot go on: its registers, and who called whom.

use std::fmt::Write;

use riscv::isa::registers;

use crate::symbols::Symbols;
use crate::unwind::{Frame, Reader, backtrace};

/// `0x1234 (function+0x12 in program)`, as far as the symbols know.
#[must_use]
pub fn address(symbols: &Symbols, at: u64) -> String {
    match symbols.place(at) {
        Some(place) => format!("{at:#x} ({place})"),
        None => format!("{at:#x}"),
    }
}

/// The registers, four in a line, and a backtrace, one line for each frame.
#[must_use]
pub fn report(symbols: &Symbols, frame: &Frame, read: Reader<'_>) -> String {
    let mut text = format!("  {:>4} {:#018x}", "pc", frame.pc);
    for (number, value) in frame.x.iter().enumerate().skip(1) {
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "{}{:>4} {value:#018x}",
            if number % 4 == 0 { "\n  " } else { "  " },
            registers::INTEGER[number]
        );
    }
    text.push('\n');
    for (number, pc) in backtrace(symbols, *frame, read).into_iter().enumerate() {
        // A caller is in the line of its call, in front of where it goes on.
        let place = symbols.place(if number == 0 { pc } else { pc.wrapping_sub(1) });
        let place = place.map_or_else(|| "?".into(), |place| place.to_string());
        let _ = writeln!(text, "  #{number:<2} {pc:#018x} {place}");
    }
    text
}
