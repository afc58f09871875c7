//! Platform-level interrupt controller: routes the level-triggered interrupts of devices to harts.
//!
//! Specification: RISC-V Platform-Level Interrupt Controller 1.0.0.
//!
//! ```text
//! device line -> gateway -> pending bit --(enabled, highest priority above threshold)--> context (hart, mode)
//!                  ^ closed from claim to completion
//! ```
//!
//! | offset | register |
//! |---|---|
//! | `0x000000 + 4 * source` | priority (0: never; up to 7) |
//! | `0x001000 + 4 * word` | pending bits, read-only |
//! | `0x002000 + 0x80 * context + 4 * word` | enable bits |
//! | `0x200000 + 0x1000 * context` | priority threshold |
//! | `0x200004 + 0x1000 * context` | claim (read), complete (write) |
//!
//! A gateway passes a request on when its line is high and no request of it is pending or in service. A pending request stays when the line
//! falls (section 1.1.1 of the specification), and completion passes a line that is still high on at once. Claims ignore the threshold.
//!
//! Cost: a change of a line or register looks at the words of pending bits of each context it concerns; a machine has a few words. One lock.

use std::fmt;
use std::sync::{Arc, Mutex};

use machine::bus::{BusDevice, Width};
use machine::interrupt::InterruptSink;
use serde::{Deserialize, Serialize};

use crate::state::{self, State, StateError};
use crate::{BoardDevice, lock};

/// The most sources that the layout has room for; source 0 does not exist but counts.
pub const SOURCES_COUNT_MAX: usize = 1024;
/// The most contexts that the layout has room for.
pub const CONTEXTS_COUNT_MAX: usize = 15872;
/// Bytes that the device occupies on the bus.
pub const SIZE: u64 = 0x400_0000;
/// The highest priority that a source or threshold can have.
pub const PRIORITY_MAX: u8 = 7;

const PENDING: u64 = 0x1000;
const ENABLE: u64 = 0x2000;
const ENABLE_STRIDE: u64 = 0x80;
const CONTEXT: u64 = 0x20_0000;
const CONTEXT_STRIDE: u64 = 0x1000;

/// Where the outputs of the controller go.
pub trait ContextLines: Send + Sync {
    /// The external interrupt of `context` now has this level. Called, when the level changes, with the controller's lock held: it must not call
    /// back into the controller.
    fn set_external_interrupt(&self, context: usize, level: bool);
}

/// What one context (a mode of a hart) has set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Which sources it listens to; bit `source % 32` of word `source / 32`.
    pub enabled: Vec<u32>,
    /// Requests of this priority or lower do not interrupt.
    pub threshold: u8,
    /// The level of its output.
    pub output: bool,
}

/// All registers and gateways: plain data, what a snapshot saves. Words of bits are as in [`Context::enabled`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registers {
    /// The level of each input.
    pub level: Vec<u32>,
    /// Requests that wait for a claim.
    pub pending: Vec<u32>,
    /// Requests claimed and not yet completed.
    pub in_service: Vec<u32>,
    /// Priority of each source; entry 0 is unused.
    pub priority: Vec<u8>,
    /// One entry for each context.
    pub contexts: Vec<Context>,
}

enum Register {
    Priority(usize),
    Pending(usize),
    Enable(usize, usize),
    Threshold(usize),
    Claim(usize),
}

fn decode(offset: u64) -> Option<Register> {
    let index = |value: u64| usize::try_from(value).ok();
    match offset {
        0..PENDING => Some(Register::Priority(index(offset / 4)?)),
        PENDING..ENABLE => Some(Register::Pending(index((offset - PENDING) / 4)?)),
        ENABLE..CONTEXT => {
            let at = offset - ENABLE;
            Some(Register::Enable(index(at / ENABLE_STRIDE)?, index(at % ENABLE_STRIDE / 4)?))
        }
        _ => {
            let at = offset - CONTEXT;
            let context = index(at / CONTEXT_STRIDE)?;
            match at % CONTEXT_STRIDE {
                0 => Some(Register::Threshold(context)),
                4 => Some(Register::Claim(context)),
                _ => None,
            }
        }
    }
}

fn word_and_bit(source: usize) -> (usize, u32) {
    (source / 32, 1 << (source % 32))
}

impl Registers {
    /// After power-on, for sources `1 ..= sources_count` and `contexts_count` contexts, each at most what the layout has room for.
    #[must_use]
    pub fn new(sources_count: usize, contexts_count: usize) -> Self {
        let numbers = (sources_count + 1).min(SOURCES_COUNT_MAX);
        let words = vec![0; numbers.div_ceil(32)];
        let context = Context { enabled: words.clone(), threshold: 0, output: false };
        Self {
            level: words.clone(),
            pending: words.clone(),
            in_service: words,
            priority: vec![0; numbers],
            contexts: vec![context; contexts_count.min(CONTEXTS_COUNT_MAX)],
        }
    }

    /// The bits of word `word` that stand for sources that exist.
    fn existing(&self, word: usize) -> u32 {
        let first = word * 32;
        let none_below = if word == 0 { !1 } else { !0 };
        match self.priority.len().saturating_sub(first) {
            count @ 0..32 => none_below & ((1 << count) - 1),
            _ => none_below,
        }
    }

    /// Gateway: makes a request of `source` pending if its line is high and it has none under way.
    fn forward(&mut self, source: usize) {
        let (word, bit) = word_and_bit(source);
        if self.level[word] & !self.in_service[word] & bit != 0 {
            self.pending[word] |= bit;
        }
    }

    /// Input `source` now has the level `raised`. Sources that do not exist are ignored.
    pub fn set_level(&mut self, source: usize, raised: bool) {
        if source == 0 || source >= self.priority.len() {
            return;
        }
        let (word, bit) = word_and_bit(source);
        if raised {
            self.level[word] |= bit;
            self.forward(source);
        } else {
            self.level[word] &= !bit;
        }
    }

    /// The pending source with the highest priority above `floor` that `context` listens to; the lowest number among equals.
    fn best(&self, context: &Context, floor: u8) -> Option<usize> {
        let mut best = None;
        let mut best_priority = floor;
        for (word, (pending, enabled)) in self.pending.iter().zip(&context.enabled).enumerate() {
            let mut bits = pending & enabled;
            while bits != 0 {
                let source = word * 32 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if self.priority[source] > best_priority {
                    best_priority = self.priority[source];
                    best = Some(source);
                }
            }
        }
        best
    }

    fn claim(&mut self, context: usize) -> u32 {
        let Some(source) = self.contexts.get(context).and_then(|c| self.best(c, 0)) else { return 0 };
        let (word, bit) = word_and_bit(source);
        self.pending[word] &= !bit;
        self.in_service[word] |= bit;
        u32::try_from(source).unwrap_or(0)
    }

    /// A completion for a source that the context does not listen to, or that is not in service, is ignored (section 9).
    fn complete(&mut self, context: usize, source: u32) {
        let Ok(source) = usize::try_from(source) else { return };
        let (word, bit) = word_and_bit(source);
        let enabled = self.contexts.get(context).and_then(|c| c.enabled.get(word));
        if source < self.priority.len() && enabled.is_some_and(|enabled| enabled & bit != 0) {
            self.in_service[word] &= !bit;
            self.forward(source);
        }
    }

    /// Reads the register at `offset`; a read of a claim register claims.
    pub fn read(&mut self, offset: u64) -> u32 {
        match decode(offset) {
            Some(Register::Priority(source)) => self.priority.get(source).copied().unwrap_or(0).into(),
            Some(Register::Pending(word)) => self.pending.get(word).copied().unwrap_or(0),
            Some(Register::Enable(context, word)) => {
                self.contexts.get(context).and_then(|c| c.enabled.get(word)).copied().unwrap_or(0)
            }
            Some(Register::Threshold(context)) => self.contexts.get(context).map_or(0, |c| c.threshold.into()),
            Some(Register::Claim(context)) => self.claim(context),
            None => 0,
        }
    }

    /// Writes the register at `offset`.
    pub fn write(&mut self, offset: u64, value: u32) {
        // Three bits exist (WARL).
        let priority = value.to_le_bytes()[0] & PRIORITY_MAX;
        match decode(offset) {
            Some(Register::Priority(source)) => {
                if let Some(slot) = self.priority.get_mut(source).filter(|_| source != 0) {
                    *slot = priority;
                }
            }
            Some(Register::Enable(context, word)) => {
                let existing = self.existing(word);
                if let Some(slot) = self.contexts.get_mut(context).and_then(|c| c.enabled.get_mut(word)) {
                    *slot = value & existing;
                }
            }
            Some(Register::Threshold(context)) => {
                if let Some(context) = self.contexts.get_mut(context) {
                    context.threshold = priority;
                }
            }
            Some(Register::Claim(context)) => self.complete(context, value),
            Some(Register::Pending(_)) | None => {}
        }
    }

    /// Works out the outputs, and calls `changed` for each that is not as it was.
    pub fn update(&mut self, mut changed: impl FnMut(usize, bool)) {
        for index in 0..self.contexts.len() {
            let context = &self.contexts[index];
            let output = self.best(context, context.threshold).is_some();
            if context.output != output {
                self.contexts[index].output = output;
                changed(index, output);
            }
        }
    }
}

/// The interrupt controller on the bus.
pub struct Plic {
    registers: Mutex<Registers>,
    lines: Arc<dyn ContextLines>,
}

impl Plic {
    /// A controller for sources `1 ..= sources_count` whose outputs, for contexts `0 .. contexts_count`, go to `lines`. Boards give each hart two
    /// contexts, machine and supervisor mode, in the order of the device tree's `interrupts-extended`.
    #[must_use]
    pub fn new(sources_count: usize, contexts_count: usize, lines: Arc<dyn ContextLines>) -> Self {
        Self { registers: Mutex::new(Registers::new(sources_count, contexts_count)), lines }
    }

    fn with<T>(&self, action: impl FnOnce(&mut Registers) -> T) -> T {
        let mut registers = lock(&self.registers);
        let result = action(&mut registers);
        registers.update(|context, level| self.lines.set_external_interrupt(context, level));
        result
    }
}

impl fmt::Debug for Plic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plic").field("registers", &self.registers).finish_non_exhaustive()
    }
}

impl InterruptSink for Plic {
    fn set_level(&self, number: u32, raised: bool) {
        self.with(|registers| registers.set_level(usize::try_from(number).unwrap_or(0), raised));
    }
}

impl BusDevice for Plic {
    fn read(&self, offset: u64, width: Width) -> u64 {
        if width != Width::Word {
            return 0;
        }
        self.with(|registers| registers.read(offset)).into()
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        if let (Width::Word, Ok(value)) = (width, u32::try_from(width.truncate(value))) {
            self.with(|registers| registers.write(offset, value));
        }
    }
}

impl BoardDevice for Plic {
    /// The levels of the inputs are the devices', and stay.
    fn reset(&self) {
        let mut registers = lock(&self.registers);
        let mut fresh = Registers::new(registers.priority.len().saturating_sub(1), registers.contexts.len());
        fresh.level = std::mem::take(&mut registers.level);
        for (fresh, old) in fresh.contexts.iter_mut().zip(&registers.contexts) {
            fresh.output = old.output;
        }
        for source in 1..fresh.priority.len() {
            fresh.forward(source);
        }
        fresh.update(|context, level| self.lines.set_external_interrupt(context, level));
        *registers = fresh;
    }
    fn pause(&self) {}
    fn resume(&self) {}

    fn save(&self) -> Result<State, StateError> {
        Ok(state::save(&*lock(&self.registers)))
    }

    /// The levels of the inputs are the devices', whichever is restored first.
    fn restore(&self, state: &State) -> Result<(), StateError> {
        let mut saved: Registers = state::read(state)?;
        let mut registers = lock(&self.registers);
        let words = registers.level.len();
        let fits = saved.priority.len() == registers.priority.len()
            && saved.contexts.len() == registers.contexts.len()
            && [&saved.level, &saved.pending, &saved.in_service].iter().all(|bits| bits.len() == words)
            && saved.contexts.iter().all(|context| context.enabled.len() == words);
        state::ensure(fits, "an interrupt controller has another number of inputs or outputs")?;
        let exists = (0..words).all(|word| saved.pending[word] & !saved.existing(word) == 0);
        state::ensure(exists, "an interrupt is pending of a source that does not exist")?;
        saved.level.clone_from(&registers.level);
        for (saved, old) in saved.contexts.iter_mut().zip(&registers.contexts) {
            saved.output = old.output;
        }
        saved.update(|context, level| self.lines.set_external_interrupt(context, level));
        *registers = saved;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::interrupt::InterruptLine;

    struct Outputs(Mutex<Vec<bool>>);
    impl ContextLines for Outputs {
        fn set_external_interrupt(&self, context: usize, level: bool) {
            lock(&self.0)[context] = level;
        }
    }

    struct Board {
        plic: Arc<Plic>,
        outputs: Arc<Outputs>,
    }

    impl Board {
        fn new() -> Self {
            let outputs = Arc::new(Outputs(Mutex::new(vec![false; 2])));
            let plic = Arc::new(Plic::new(40, 2, Arc::clone(&outputs) as Arc<dyn ContextLines>));
            Self { plic, outputs }
        }
        fn write(&self, offset: u64, value: u64) {
            self.plic.write(offset, Width::Word, value);
        }
        fn read(&self, offset: u64) -> u64 {
            self.plic.read(offset, Width::Word)
        }
        fn output(&self, context: usize) -> bool {
            lock(&self.outputs.0)[context]
        }
        fn line(&self, number: u32) -> InterruptLine {
            InterruptLine::new(Arc::clone(&self.plic) as Arc<dyn InterruptSink>, number)
        }
    }

    const CLAIM: u64 = 0x20_0004;

    #[test]
    fn claim_and_complete_a_level() {
        let board = Board::new();
        let line = board.line(33);
        board.write(4 * 33, 5);
        board.write(0x2084, 2);
        line.set(true);
        assert!(!board.output(0) && board.output(1), "only context 1 listens");
        assert_eq!(board.read(0x1004), 2);
        assert_eq!(board.read(CLAIM + 0x1000), 33);
        assert!(!board.output(1));
        assert_eq!(board.read(CLAIM + 0x1000), 0, "closed until completion");
        board.write(CLAIM, 33);
        assert!(!board.output(1), "context 0 does not listen, its completion does not count");
        board.write(CLAIM + 0x1000, 33);
        assert!(board.output(1), "the line is still high");
        line.set(false);
        assert!(board.output(1), "a pending request stays");
        assert_eq!(board.read(CLAIM + 0x1000), 33);
        board.write(CLAIM + 0x1000, 33);
        assert!(!board.output(1));
    }

    #[test]
    fn highest_priority_wins_then_lowest_number() {
        let board = Board::new();
        for (source, priority) in [(3, 2), (4, 6), (5, 6), (6, 0)] {
            board.write(4 * source, priority);
            board.line(u32::try_from(source).unwrap()).set(true);
        }
        board.write(0x2000, 0b111_1000);
        assert_eq!([board.read(CLAIM), board.read(CLAIM), board.read(CLAIM), board.read(CLAIM)], [4, 5, 3, 0]);
    }

    #[test]
    fn threshold_masks_the_output_but_not_the_claim() {
        let board = Board::new();
        board.write(4 * 7, 3);
        board.write(0x2000, 1 << 7);
        board.write(0x20_0000, 3);
        board.line(7).set(true);
        assert!(!board.output(0));
        board.write(0x20_0000, 2);
        assert!(board.output(0));
        board.write(0x20_0000, 7);
        assert_eq!(board.read(CLAIM), 7);
    }

    #[test]
    fn only_what_exists_can_be_set() {
        let board = Board::new();
        for word in 0..32 {
            board.write(0x2000 + 4 * word, 0xffff_ffff);
        }
        assert_eq!(board.read(0x2000), 0xffff_fffe, "there is no source 0");
        assert_eq!(board.read(0x2004), 0x1ff, "sources end at 40");
        assert_eq!(board.read(0x2008), 0);
        board.write(0, 7);
        board.write(4, 0xffff_ffff);
        assert_eq!((board.read(0), board.read(4)), (0, 7));
        board.write(CLAIM, 0xffff_ffff);
        board.line(4000).set(true);
        board.write(CLAIM + 0x2000, 1);
        assert_eq!(board.read(CLAIM + 0x3ff_0000 - 0x20_0000), 0);
    }

    #[test]
    fn reset_keeps_lines() {
        let board = Board::new();
        board.line(9).set(true);
        board.write(4 * 9, 1);
        board.write(0x2000, 1 << 9);
        assert!(board.output(0));
        board.plic.reset();
        assert!(!board.output(0));
        board.write(4 * 9, 1);
        board.write(0x2000, 1 << 9);
        assert_eq!(board.read(CLAIM), 9, "the line is still high");
    }
}
