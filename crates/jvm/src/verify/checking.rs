//! Verification by type checking (JVMS 4.10.1): one pass over the code, in which frames at joins come from the class file.

use std::collections::HashSet;

use classfile::opcode::{Instruction, Malformed, Opcode};
use classfile::{ClassFile, Code, Method};

use super::effects::{Effect, Place};
use super::frame::{Frame, State};
use super::stackmap::{self, MapFrame};
use super::types::{Names, Type};
use super::{Error, Hierarchy, Problem, report};

pub(super) fn verify<H: Hierarchy>(class: &ClassFile<'_>, hierarchy: &mut H) -> Result<(), Error<H::Failure>> {
    let mut names = Names::new();
    for method in &class.methods {
        let Some(code) = &method.code else { continue };
        let mut checker = Checker {
            place: Place::new(&mut names, class, method, code, false),
            names: &mut names,
            hierarchy,
            starts: Vec::new(),
            maps: Vec::new(),
            operands: Vec::new(),
        };
        checker.run(method)?;
    }
    Ok(())
}

struct Checker<'c, 'a, H> {
    place: Place<'a>,
    names: &'c mut Names,
    hierarchy: &'c mut H,
    /// Of each byte of the code, whether an instruction begins there.
    starts: Vec<bool>,
    maps: Vec<MapFrame>,
    /// The stack before the instruction, for messages.
    operands: Vec<Type>,
}

/// Why code could not be decoded, as HotSpot words it.
pub(super) fn malformed<F>(at: Malformed) -> Problem<F> {
    Problem::new(match at {
        Malformed::TableBounds => "low must be less than or equal to high in tableswitch".into(),
        Malformed::EntryCount => "number of keys in lookupswitch less than 0".into(),
        Malformed::Wide(_) => "Bad wide instruction".to_owned(),
        Malformed::Opcode(_) | Malformed::Truncated => "Bad instruction".into(),
    })
}

/// Of each byte of the code, whether an instruction begins there.
pub(super) fn starts<F>(code: &Code<'_>) -> Result<Vec<bool>, (u16, Problem<F>)> {
    let mut starts = vec![false; code.bytes.len()];
    for instruction in code.instructions() {
        let instruction = instruction.map_err(|(offset, why)| (offset, malformed(why)))?;
        starts[usize::from(instruction.offset)] = true;
    }
    Ok(starts)
}

/// The handlers and variables of a method are about whole instructions.
pub(super) fn check_ranges<F>(class: &ClassFile<'_>, code: &Code<'_>, starts: &[bool]) -> Result<(), Problem<F>> {
    let is_start = |offset: u32| starts.get(offset as usize) == Some(&true);
    let is_end = |offset: u32| offset as usize == starts.len() || is_start(offset);
    let name = classfile::mutf8::decode(class.name);
    for range in code.handlers.iter() {
        let problem = if !is_start(range.start.into()) {
            format!("Illegal exception table start_pc {}", range.start)
        } else if !is_end(range.end.into()) {
            format!("Illegal exception table end_pc {}", range.end)
        } else if !is_start(range.handler.into()) {
            format!("Illegal exception table handler_pc {}", range.handler)
        } else {
            continue;
        };
        return Err(Problem::Format(format!("{problem} in class file {name}")));
    }
    for variable in code.local_variables() {
        let problem = if !is_start(variable.start.into()) {
            format!("Illegal local variable table start_pc {}", variable.start)
        } else if !is_end(u32::from(variable.start) + u32::from(variable.length)) {
            format!("Illegal local variable table length {}", variable.length)
        } else {
            continue;
        };
        return Err(Problem::Format(format!("{problem} in class file {name}")));
    }
    Ok(())
}

impl<'a, H: Hierarchy> Checker<'_, 'a, H> {
    fn run(&mut self, method: &Method<'a>) -> Result<(), Error<H::Failure>> {
        let place = self.place;
        let is_object = place.class.name == b"java/lang/Object";
        let initial = Frame::initial(self.names, place.this, is_object, method, place.code.max_locals);
        let mut frame = initial.clone();
        let mut at = 0;
        let verdict = self.code(&initial, &mut frame, &mut at);
        verdict.map_err(|problem| report::error(&place, self.names, problem, at, Some(&frame)))
    }

    fn code(&mut self, initial: &Frame, frame: &mut Frame, at: &mut u16) -> Result<(), Problem<H::Failure>> {
        let code = self.place.code;
        self.starts = starts(code).map_err(|(offset, problem)| {
            *at = offset;
            problem
        })?;
        check_ranges(self.place.class, code, &self.starts)?;
        self.check_catch_types()?;
        self.maps = stackmap::parse(self.names, self.place.class, code, &self.starts, initial)?;
        let mut next_map = 0;
        let mut falls_through = true;
        for instruction in code.instructions() {
            let instruction = instruction.map_err(|(_, why)| malformed(why))?;
            *at = instruction.offset;
            match self.maps.get(next_map) {
                Some(map) if map.offset == instruction.offset => {
                    if falls_through {
                        self.fits(frame, next_map, "Instruction type does not match stack map")?;
                    }
                    *frame = self.maps[next_map].frame.clone();
                    next_map += 1;
                }
                _ if !falls_through => {
                    let reason = "Expected stackmap frame at this location.".into();
                    return Err(Problem::because("Expecting a stack map frame", reason));
                }
                _ => {}
            }
            falls_through = !instruction.opcode.ends_block();
            self.instruction(frame, &instruction)?;
        }
        if falls_through {
            return Err(Problem::because("Control flow falls through code end", "Error exists in the bytecode".into()));
        }
        Ok(())
    }

    fn check_catch_types(&mut self) -> Result<(), Problem<H::Failure>> {
        let throwable = self.names.reference(b"java/lang/Throwable");
        for range in self.place.code.handlers.iter().filter(|range| range.catch_type != 0) {
            let name = self.place.class.constants.class_name(range.catch_type).unwrap_or_default();
            let caught = self.names.reference(name);
            if !self.names.assignable(caught, throwable, false, self.hierarchy)? {
                let message =
                    format!("Catch type is not a subclass of Throwable in exception handler {}", range.handler);
                return Err(Problem::because(message, "Error exists in the bytecode".into()));
            }
        }
        Ok(())
    }

    fn instruction(&mut self, frame: &mut Frame, instruction: &Instruction<'a>) -> Result<(), Problem<H::Failure>> {
        let offset = instruction.offset;
        let covered = self.place.code.handlers.iter().any(|range| (range.start..range.end).contains(&offset));
        let stores = is_store(instruction.opcode);
        if covered && stores {
            self.check_handlers(frame, offset, false)?;
        }
        let before = (covered && instruction.opcode == Opcode::InvokeSpecial).then(|| frame.clone());
        let mut state = State {
            frame,
            names: self.names,
            hierarchy: self.hierarchy,
            max_stack: usize::from(self.place.code.max_stack),
            old: false,
        };
        self.operands.clear();
        self.operands.extend_from_slice(&state.frame.stack);
        let effect = match self.place.step(&mut state, instruction) {
            Ok(effect) => effect,
            Err(problem) => {
                state.frame.stack.clone_from(&self.operands);
                return Err(problem);
            }
        };
        match (effect, before) {
            (Effect::ThisInitialized, Some(_)) => self.check_handlers_throw(offset)?,
            (Effect::ObjectInitialized, Some(before)) => self.check_handlers(&before, offset, false)?,
            _ => {}
        }
        self.check_targets(frame, instruction)?;
        if covered && !stores {
            self.check_handlers(frame, offset, effect == Effect::ThisInitialized)?;
        }
        Ok(())
    }

    fn check_targets(&mut self, frame: &Frame, instruction: &Instruction<'a>) -> Result<(), Problem<H::Failure>> {
        if let Some(target) = instruction.branch() {
            return self.check_target(frame, target);
        }
        let Some(switch) = instruction.switch() else { return Ok(()) };
        if self.place.class.major_version < 51 && instruction.padding().iter().any(|&byte| byte != 0) {
            return Err(Problem::new("Nonzero padding byte in lookupswitch or tableswitch"));
        }
        self.check_target(frame, switch.default)?;
        let mut last = None;
        for (key, target) in switch.cases() {
            if last.is_some_and(|last| last >= key) {
                return Err(Problem::new("Bad lookupswitch instruction"));
            }
            last = Some(key);
            self.check_target(frame, target)?;
        }
        Ok(())
    }

    fn check_target(&mut self, frame: &Frame, target: i64) -> Result<(), Problem<H::Failure>> {
        let place = u16::try_from(target).ok().and_then(|target| self.map_at(target));
        let Some(index) = place else {
            let message = format!("Expecting a stackmap frame at branch target {target}");
            return Err(Problem::because(message, "Expected stackmap frame at this location.".into()));
        };
        self.fits(frame, index, &format!("Inconsistent stackmap frames at branch target {target}"))
    }

    fn map_at(&self, offset: u16) -> Option<usize> {
        self.maps.binary_search_by_key(&offset, |map| map.offset).ok()
    }

    /// Whether the frame may go on as that of the stack map.
    fn fits(&mut self, frame: &Frame, index: usize, message: &str) -> Result<(), Problem<H::Failure>> {
        let map = &self.maps[index].frame;
        let reason = if frame.stack.len() != map.stack.len() {
            Some("Current frame's stack size doesn't match stackmap.".to_owned())
        } else {
            let slots = [("locals", &frame.locals, &map.locals), ("stack", &frame.stack, &map.stack)];
            let mut reason = None;
            'all: for (part, from, to) in slots {
                for (slot, (&from, &to)) in from.iter().zip(to).enumerate() {
                    if !self.names.assignable(from, to, false, self.hierarchy)? {
                        reason = Some(format!(
                            "Type {} (current frame, {part}[{slot}]) is not assignable to {} (stack map, {part}[{slot}])",
                            self.names.describe(from),
                            self.names.describe(to)
                        ));
                        break 'all;
                    }
                }
            }
            if reason.is_none() && frame.this_uninitialized && !map.this_uninitialized {
                reason = Some("Current frame's flags are not assignable to stack map frame's.".to_owned());
            }
            reason
        };
        match reason {
            None => Ok(()),
            Some(reason) => Err(Problem::Verify {
                message: message.into(),
                reason: Some(reason),
                stackmap: Some(Box::new(self.maps[index].clone())),
            }),
        }
    }

    /// What covers `offset` must be able to begin with these locals. `constructed`: `this` was initialised by the instruction itself, which may
    /// also have failed.
    fn check_handlers(&mut self, frame: &Frame, offset: u16, constructed: bool) -> Result<(), Problem<H::Failure>> {
        let covering = self.place.code.handlers.iter().filter(|range| (range.start..range.end).contains(&offset));
        for range in covering {
            let caught = match range.catch_type {
                0 => self.names.reference(b"java/lang/Throwable"),
                index => {
                    let name = self.place.class.constants.class_name(index).unwrap_or_default();
                    self.names.reference(name)
                }
            };
            if self.place.code.max_stack == 0 {
                return Err(Problem::because("Operand stack overflow", "Exceeded max stack size.".into()));
            }
            let thrown = Frame {
                locals: frame.locals.clone(),
                stack: vec![caught],
                this_uninitialized: frame.this_uninitialized || constructed,
            };
            let message = format!("Stack map does not match the one at exception handler {}", range.handler);
            match self.map_at(range.handler) {
                Some(index) => self.fits(&thrown, index, &message)?,
                None => {
                    let reason = "Expected stackmap frame at this location.".to_owned();
                    return Err(Problem::because(message, reason));
                }
            }
        }
        Ok(())
    }

    /// If calling the superclass's constructor fails, the object must not be used: handlers around the call have to throw.
    fn check_handlers_throw(&self, offset: u16) -> Result<(), Problem<H::Failure>> {
        let mut covering = self.place.code.handlers.iter().filter(|range| (range.start..range.end).contains(&offset));
        if covering.all(|range| self.ends_in_throw(range.handler)) {
            return Ok(());
        }
        Err(Problem::because(
            "Bad <init> method call from after the start of a try block",
            "Error exists in the bytecode".into(),
        ))
    }

    /// Whether all paths from here end by throwing, or never.
    fn ends_in_throw(&self, from: u16) -> bool {
        let mut seen = HashSet::new();
        let mut waiting = vec![i64::from(from)];
        while let Some(offset) = waiting.pop() {
            let Some(offset) = u16::try_from(offset).ok() else { return false };
            if !seen.insert(offset) {
                continue;
            }
            let Ok(instruction) = Instruction::decode(self.place.code.bytes, offset) else { return false };
            match instruction.opcode {
                Opcode::AThrow => continue,
                Opcode::Return
                | Opcode::IReturn
                | Opcode::LReturn
                | Opcode::FReturn
                | Opcode::DReturn
                | Opcode::AReturn
                | Opcode::Jsr
                | Opcode::JsrW
                | Opcode::Ret => return false,
                _ => {}
            }
            waiting.extend(instruction.branch());
            if let Some(switch) = instruction.switch() {
                waiting.push(switch.default);
                waiting.extend(switch.cases().map(|(_, target)| target));
            }
            if !instruction.opcode.ends_block() {
                waiting.push(i64::from(instruction.end()));
            }
        }
        true
    }
}

/// Whether the instruction stores into a local variable.
pub(super) fn is_store(opcode: Opcode) -> bool {
    (Opcode::IStore as u8..=Opcode::AStore3 as u8).contains(&(opcode as u8))
}
