//! The analysis: states flow from the beginning along branches until nothing changes.

use std::collections::{BTreeMap, BTreeSet};

use classfile::opcode::{Instruction, Instructions, Opcode};

use super::effect::{self, Cell, OTHER, REFERENCE, RETURN, State};
use super::{Constants, Maps};

/// States that are kept at most, over all instructions. Only subroutines made to be nested without need come near.
const STATES_MAX: usize = 200_000;

/// A method to analyse.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The code, in which no opcode is one of the interpreter's own.
    pub code: &'a [u8],
    /// Handlers: start, end and target.
    pub handlers: &'a [(u16, u16, u16)],
    /// Slots of local variables.
    pub max_locals: u16,
    /// Slots of the operand stack.
    pub max_stack: u16,
    /// Whether there is no receiver.
    pub is_static: bool,
    /// The method's descriptor.
    pub descriptor: &'a [u8],
}

/// The subroutines of a method are nested in too many ways: a `VerifyError` is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the subroutines of the method are nested in too many ways")]
pub struct TooComplex;

/// An instruction, its map, and its return addresses by slot.
type Row = (u16, Vec<u8>, Vec<(u16, u16)>);

struct Analysis<'a, C> {
    source: Source<'a>,
    constants: &'a C,
    /// Where blocks begin, and their states, which differ in return addresses.
    blocks: BTreeMap<u16, Vec<State>>,
    leaders: BTreeSet<u16>,
    work: Vec<(u16, usize)>,
    states: usize,
}

/// Joins `from` into `into`; whether that changed it. `None`: return addresses differ.
fn join(into: &mut State, from: &State) -> Option<bool> {
    let cells = || into.locals.iter().zip(&from.locals).chain(into.stack.iter().zip(&from.stack));
    if cells().any(|(a, b)| a != b && (*a >= RETURN || *b >= RETURN)) {
        return None;
    }
    let mut changed = false;
    let cells = into.locals.iter_mut().zip(&from.locals).chain(into.stack.iter_mut().zip(&from.stack));
    for (into, from) in cells {
        if *into != *from && *into != OTHER {
            *into = OTHER;
            changed = true;
        }
    }
    Some(changed)
}

impl<C: Constants> Analysis<'_, C> {
    fn flow(&mut self, to: i64, state: &State) -> Result<(), TooComplex> {
        let Ok(to) = u16::try_from(to) else { return Ok(()) };
        let states = self.blocks.entry(to).or_default();
        for (index, known) in states.iter_mut().enumerate() {
            match join(known, state) {
                None => {}
                Some(false) => return Ok(()),
                Some(true) => {
                    self.work.push((to, index));
                    return Ok(());
                }
            }
        }
        self.states += 1;
        if self.states > STATES_MAX {
            return Err(TooComplex);
        }
        states.push(state.clone());
        self.work.push((to, states.len() - 1));
        Ok(())
    }

    /// Runs from a leader to the end of its block, calling `visit` before each instruction.
    fn block(
        &self,
        start: u16,
        mut state: State,
        mut visit: impl FnMut(&Instruction<'_>, &State) -> Result<(), TooComplex>,
        mut leave: impl FnMut(i64, &State) -> Result<(), TooComplex>,
    ) -> Result<(), TooComplex> {
        let mut at = start;
        while let Ok(instruction) = Instruction::decode(self.source.code, at) {
            visit(&instruction, &state)?;
            effect::apply(&mut state, &instruction, self.constants);
            if let Some(target) = instruction.branch() {
                leave(target, &state)?;
                if matches!(instruction.opcode, Opcode::Jsr | Opcode::JsrW) {
                    return Ok(());
                }
            }
            if let Some(switch) = instruction.switch() {
                leave(switch.default, &state)?;
                for (_, target) in switch.cases() {
                    leave(target, &state)?;
                }
            }
            if instruction.opcode == Opcode::Ret {
                let local = usize::from(instruction.local().unwrap_or_default());
                let address = state.locals.get(local).copied().unwrap_or(OTHER);
                if address >= RETURN {
                    let forget = |cell: &mut Cell| {
                        if *cell == address {
                            *cell = OTHER;
                        }
                    };
                    state.locals.iter_mut().for_each(forget);
                    state.stack.iter_mut().for_each(forget);
                    leave(i64::from(address - RETURN), &state)?;
                }
            }
            let Ok(next) = u16::try_from(instruction.end()) else { return Ok(()) };
            if instruction.opcode.ends_block() || usize::from(next) >= self.source.code.len() {
                return Ok(());
            }
            if self.leaders.contains(&next) {
                return leave(i64::from(next), &state);
            }
            at = next;
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), TooComplex> {
        let mut first = State { locals: Vec::new(), stack: Vec::new() };
        if !self.source.is_static {
            first.locals.push(REFERENCE);
        }
        effect::arguments(self.source.descriptor, |reference, count| {
            first.locals.push(if reference { REFERENCE } else { OTHER });
            if count == 2 {
                first.locals.push(OTHER);
            }
        });
        first.locals.resize(usize::from(self.source.max_locals), OTHER);
        self.flow(0, &first)?;
        while let Some((start, index)) = self.work.pop() {
            let state = self.blocks[&start][index].clone();
            let mut flows: Vec<(i64, State)> = Vec::new();
            let mut thrown: Vec<(i64, State)> = Vec::new();
            let mut handled: Option<Vec<Cell>> = None;
            self.block(
                start,
                state,
                |instruction, state| {
                    // Locals change seldom, and only what is new flows to handlers. Ranges begin and end at leaders.
                    if handled.as_ref() != Some(&state.locals) {
                        for &(from, to, target) in self.source.handlers {
                            if (from..to).contains(&instruction.offset) {
                                let state = State { locals: state.locals.clone(), stack: vec![REFERENCE] };
                                thrown.push((i64::from(target), state));
                            }
                        }
                        handled = Some(state.locals.clone());
                    }
                    Ok(())
                },
                |target, state| {
                    flows.push((target, state.clone()));
                    Ok(())
                },
            )?;
            for (target, state) in thrown.iter().chain(&flows) {
                self.flow(*target, state)?;
            }
        }
        Ok(())
    }

    fn maps(&self) -> Result<Maps, TooComplex> {
        let max_locals = usize::from(self.source.max_locals);
        let stride = (max_locals + usize::from(self.source.max_stack)).div_ceil(8);
        let mut maps = Maps { max_locals, stride, ..Maps::default() };
        let mut rows: Vec<Row> = Vec::new();
        let mut has_returns = false;
        for (&start, states) in &self.blocks {
            for state in states {
                let visit = |instruction: &Instruction<'_>, state: &State| {
                    let mut bits = vec![0u8; stride];
                    let mut returns = Vec::new();
                    let cells = state.locals.iter().chain(state.stack.iter().take(usize::from(self.source.max_stack)));
                    for (slot, &cell) in cells.enumerate() {
                        if cell == REFERENCE {
                            bits[slot / 8] |= 1 << (slot % 8);
                        } else if cell >= RETURN
                            && let (Ok(slot), Ok(address)) = (u16::try_from(slot), u16::try_from(cell - RETURN))
                        {
                            returns.push((slot, address));
                            has_returns = true;
                        }
                    }
                    rows.push((instruction.offset, bits, returns));
                    Ok(())
                };
                self.block(start, state.clone(), visit, |_, _| Ok(()))?;
            }
        }
        // Variants with more return addresses are asked first, as they say more.
        rows.sort_by_key(|(bci, _, returns)| (*bci, std::cmp::Reverse(returns.len())));
        for (bci, bits, returns) in rows {
            maps.bcis.push(bci);
            maps.bits.extend(bits);
            if has_returns {
                maps.returns.push(returns);
            }
        }
        Ok(maps)
    }
}

/// Finds the maps of a method that the verifier accepted. Any other yields some maps, too.
///
/// # Errors
/// If there are too many ways through subroutines.
pub fn analyze(source: Source<'_>, constants: &impl Constants) -> Result<Maps, TooComplex> {
    let mut leaders = BTreeSet::new();
    let mut leader = |target: i64| {
        leaders.extend(u16::try_from(target).ok());
    };
    for instruction in Instructions::new(source.code).map_while(Result::ok) {
        if let Some(target) = instruction.branch() {
            leader(target);
        }
        if matches!(instruction.opcode, Opcode::Jsr | Opcode::JsrW) {
            leader(i64::from(instruction.end()));
        }
        if let Some(switch) = instruction.switch() {
            leader(switch.default);
            switch.cases().for_each(|(_, target)| leader(target));
        }
    }
    for &(start, end, target) in source.handlers {
        [start, end, target].into_iter().for_each(|at| leader(i64::from(at)));
    }
    let mut analysis = Analysis { source, constants, blocks: BTreeMap::new(), leaders, work: Vec::new(), states: 0 };
    analysis.run()?;
    analysis.maps()
}
