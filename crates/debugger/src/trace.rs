//! `--trace`: a line of text for each executed instruction.
//!
//! ```text
//! hart pc               mode bits     instruction                effect
//! 0 0x0000000080200040 S 00a28293 addi t0,t0,10                    t0=0x2a
//! 0 0x0000000080200044 S 9002     c.ebreak                         trap to 0x80000004
//! ```
//!
//! Of an x86-64 machine, with the ring in place of the mode and all that the instruction did to general registers:
//!
//! ```text
//! 0 0x0000000000100005 0 4c8b23               mov r12,[rbx]                    r12=0x9bd1
//! ```

use std::io::{self, BufWriter, Write};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter};
use riscv::hart::Privilege;
use riscv::hart::debug::{Traced, Tracer};
use riscv::isa::{disassemble, registers};
use x86::board::trace::{Traced as X86Traced, Tracer as X86Tracer};

/// Writes a line for each instruction.
pub struct TextTrace {
    /// Which addresses; empty for all.
    ranges: Vec<RangeInclusive<u64>>,
    out: Mutex<Out>,
}

struct Out {
    writer: BufWriter<Box<dyn Write + Send>>,
    /// The first failure; nothing is written after it.
    failed: Option<io::Error>,
}

/// First and last address of `START-END`, hexadecimal with or without `0x`; the last is part of the range.
///
/// # Errors
/// It is no such range.
pub fn parse_range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let number = |word: &str| u64::from_str_radix(word.trim().trim_start_matches("0x"), 16).ok();
    let range = text.split_once('-').and_then(|(start, end)| Some(number(start)?..=number(end)?));
    range.filter(|range| !range.is_empty()).ok_or_else(|| "expected START-END, as in 80200000-802fffff".into())
}

impl TextTrace {
    /// A trace to `writer` of the instructions in `ranges`, or of all if there are none.
    #[must_use]
    pub fn new(writer: Box<dyn Write + Send>, ranges: Vec<RangeInclusive<u64>>) -> Self {
        Self { ranges, out: Mutex::new(Out { writer: BufWriter::with_capacity(1 << 16, writer), failed: None }) }
    }

    fn wants(&self, pc: u64) -> bool {
        self.ranges.is_empty() || self.ranges.iter().any(|range| range.contains(&pc))
    }

    fn write(&self, line: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if out.failed.is_none()
            && let Err(cause) = writeln!(out.writer, "{line}")
        {
            out.failed = Some(cause);
        }
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// The first failure to write, if there was one.
    pub fn finish(&self) -> io::Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        match out.failed.take() {
            Some(cause) => Err(cause),
            None => out.writer.flush(),
        }
    }
}

/// A line about an instruction.
fn line(traced: &Traced) -> String {
    let mode = match traced.privilege {
        Privilege::User => 'U',
        Privilege::Supervisor => 'S',
        Privilege::Machine => 'M',
    };
    let bits =
        if traced.bits & 3 == 3 { format!("{:08x}", traced.bits) } else { format!("{:04x}    ", traced.bits & 0xffff) };
    let text = disassemble(traced.bits, traced.pc);
    let effect = match (traced.trapped_to, traced.written) {
        (Some(handler), _) => format!("trap to {handler:#x}"),
        (None, Some((number, value))) => {
            let (names, index) =
                if number < 32 { (&registers::INTEGER, number) } else { (&registers::FLOAT, number - 32) };
            format!("{}={value:#x}", names[usize::from(index & 31)])
        }
        (None, None) => String::new(),
    };
    let line = format!("{} {:#018x} {mode} {bits} {text:32} {effect}", traced.hart, traced.pc);
    line.trim_end().to_owned()
}

impl Tracer for TextTrace {
    fn wants(&self, pc: u64) -> bool {
        Self::wants(self, pc)
    }

    fn instruction(&self, traced: &Traced) {
        self.write(&line(traced));
    }
}

/// A line about an instruction of an x86-64 processor.
fn x86_line(traced: &X86Traced) -> String {
    let mut decoder = Decoder::with_ip(traced.bits, &traced.bytes, traced.pc, DecoderOptions::NONE);
    let instruction: Instruction = decoder.decode();
    let mut text = String::new();
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    formatter.format(&instruction, &mut text);
    let length = if instruction.is_invalid() { traced.bytes.len() } else { instruction.len() };
    let bytes: String = traced.bytes.iter().take(length).map(|byte| format!("{byte:02x}")).collect();
    let values = traced.before.iter().zip(&traced.after).zip(X86Traced::REGISTERS);
    let written = values.filter(|((before, after), _)| before != after);
    let effect: Vec<_> = written.map(|((_, after), name)| format!("{name}={after:#x}")).collect();
    let (number, pc, ring) = (traced.processor, traced.pc, traced.ring);
    let line = format!("{number} {pc:#018x} {ring} {bytes:20} {text:32} {}", effect.join(" "));
    line.trim_end().to_owned()
}

impl X86Tracer for TextTrace {
    fn wants(&self, pc: u64) -> bool {
        Self::wants(self, pc)
    }

    fn instruction(&self, traced: &X86Traced) {
        self.write(&x86_line(traced));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_was_executed_and_what_came_of_it() {
        let traced = Traced {
            hart: 1,
            pc: 0x8020_0040,
            privilege: Privilege::Supervisor,
            bits: 0x00a2_8293,
            written: Some((5, 42)),
            trapped_to: None,
        };
        assert_eq!(line(&traced), "1 0x0000000080200040 S 00a28293 addi t0,t0,10                    t0=0x2a");
        let trapped = Traced { bits: 0x9002, written: None, trapped_to: Some(0x8000_0000), ..traced };
        assert_eq!(
            line(&trapped),
            "1 0x0000000080200040 S 9002     c.ebreak                         trap to 0x80000000"
        );
    }

    #[test]
    fn a_line_of_an_x86_processor() {
        let mut traced = X86Traced {
            processor: 1,
            pc: 0x10_0005,
            ring: 0,
            bits: 64,
            bytes: vec![0x4c, 0x8b, 0x23, 0x45, 0x31, 0xed],
            before: [0; 16],
            after: [0; 16],
        };
        traced.after[12] = 0x2a;
        let line = x86_line(&traced);
        assert_eq!(line, "1 0x0000000000100005 0 4c8b23               mov r12,[rbx]                    r12=0x2a");
        traced.after[12] = 0;
        traced.bytes = vec![0xeb, 0xfe];
        assert!(
            x86_line(&traced).ends_with("ebfe                 jmp short 0x0000000000100005"),
            "{}",
            x86_line(&traced)
        );
        // What cannot be read, or is no instruction, is told as well.
        for bytes in [vec![], vec![0x0f, 0x0b], vec![0xff; 15]] {
            traced.bytes = bytes;
            assert!(x86_line(&traced).starts_with("1 0x0000000000100005 0 "));
        }
    }

    #[test]
    fn ranges_are_hexadecimal_and_inclusive() {
        assert_eq!(parse_range("0x10-1f"), Ok(0x10..=0x1f));
        assert_eq!(parse_range("0-ffffffffffffffff"), Ok(0..=u64::MAX));
        for wrong in ["", "10", "20-10", "x-y", "-"] {
            assert!(parse_range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_told_at_the_end() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let trace = TextTrace::new(Box::new(Full), vec![0x10..=0x1f]);
        assert!(Tracer::wants(&trace, 0x1f) && !X86Tracer::wants(&trace, 0x20));
        let traced = Traced { hart: 0, pc: 0x10, privilege: Privilege::User, bits: 1, written: None, trapped_to: None };
        for _ in 0..2000 {
            Tracer::instruction(&trace, &traced);
        }
        assert_eq!(trace.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
