//! `StackMapTable` (JVMS 4.7.4): the frames at joins, as the compiler wrote them.

use classfile::opcode::Opcode;
use classfile::{ClassFile, Constant};

use super::Problem;
use super::frame::Frame;
use super::types::{Names, Type};

/// A frame and the offset of the instruction that it stands before.
#[derive(Clone, Debug)]
pub(super) struct MapFrame {
    pub(super) offset: u16,
    pub(super) frame: Frame,
}

/// Reads all frames of a method. Offsets increase, and are those of instructions, of which `starts` tells.
pub(super) fn parse<F>(
    names: &mut Names,
    class: &ClassFile<'_>,
    code: &classfile::Code<'_>,
    starts: &[bool],
    initial: &Frame,
) -> Result<Vec<MapFrame>, Problem<F>> {
    let Some(bytes) = code.stack_map_table else { return Ok(Vec::new()) };
    let mut reader = Reader { rest: bytes, names, class, code, starts };
    let count = reader.u16()?;
    // A frame takes a byte at least.
    let mut frames: Vec<MapFrame> = Vec::with_capacity(usize::from(count).min(bytes.len()));
    let mut locals = compact(&initial.locals);
    let mut uninitialized = initial.this_uninitialized;
    let mut next = 0u32;
    for _ in 0..count {
        let kind = reader.u8()?;
        let (delta, stack) = reader.frame(kind, &mut locals, &mut uninitialized)?;
        let offset = next + u32::from(delta);
        let offset = u16::try_from(offset).ok().filter(|&offset| starts.get(usize::from(offset)) == Some(&true));
        let Some(offset) = offset else {
            return Err(Problem::because("StackMapTable error: bad offset", "Invalid stackmap specification.".into()));
        };
        next = u32::from(offset) + 1;
        let mut all: Vec<Type> = Vec::with_capacity(usize::from(code.max_locals));
        expand(&locals, &mut all);
        if all.len() > usize::from(code.max_locals) {
            return Err(format_error("locals size too large"));
        }
        all.resize(usize::from(code.max_locals), Type::Top);
        let mut slots = Vec::new();
        expand(&stack, &mut slots);
        if slots.len() > usize::from(code.max_stack) {
            return Err(format_error("stack size too large"));
        }
        frames.push(MapFrame { offset, frame: Frame { locals: all, stack: slots, this_uninitialized: uninitialized } });
    }
    if !reader.rest.is_empty() {
        return Err(format_error("wrong attribute size"));
    }
    Ok(frames)
}

fn format_error<F>(what: &str) -> Problem<F> {
    Problem::Format(format!("StackMapTable format error: {what}"))
}

/// Locals as the format counts them: long and double once, and none behind the last that has a type.
fn compact(locals: &[Type]) -> Vec<Type> {
    let used = locals.iter().rposition(|&slot| slot != Type::Top).map_or(0, |last| last + 1);
    locals[..used].iter().copied().filter(|slot| !slot.is_second()).collect()
}

fn expand(compact: &[Type], to: &mut Vec<Type>) {
    for &of in compact {
        to.push(of);
        to.extend(of.second());
    }
}

/// The frames as HotSpot's messages list them, as far as they can be read: one line each.
pub(super) fn describe(bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut listing = Listing { rest: bytes };
    let mut next = 0u32;
    for _ in 0..listing.u16().unwrap_or(0) {
        let Some((delta, line)) = listing.frame() else { break };
        let offset = next + u32::from(delta);
        lines.push(line.replacen('@', &format!("@{offset}"), 1));
        next = offset + 1;
    }
    lines
}

/// Reads frames as text, without looking at what they mean.
struct Listing<'l> {
    rest: &'l [u8],
}

impl Listing<'_> {
    fn u8(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn types(&mut self, count: u16) -> Option<String> {
        let types: Option<Vec<String>> = (0..count).map(|_| self.slot()).collect();
        Some(types?.join(","))
    }

    fn slot(&mut self) -> Option<String> {
        let name = match self.u8()? {
            0 => "Top",
            1 => "Integer",
            2 => "Float",
            3 => "Double",
            4 => "Long",
            5 => "Null",
            6 => "UninitializedThis",
            7 => return Some(format!("Object[#{}]", self.u16()?)),
            8 => return Some(format!("Uninitialized[#{}]", self.u16()?)),
            tag => return Some(format!("BAD:{tag}")),
        };
        Some(name.into())
    }

    /// The distance, and the line with nothing behind its `@`.
    fn frame(&mut self) -> Option<(u16, String)> {
        let kind = self.u8()?;
        Some(match kind {
            0..=63 => (kind.into(), "same_frame(@)".into()),
            64..=127 => (u16::from(kind - 64), format!("same_locals_1_stack_item_frame(@,{})", self.slot()?)),
            247 => (self.u16()?, format!("same_locals_1_stack_item_frame_extended(@,{})", self.slot()?)),
            248..=250 => (self.u16()?, format!("chop_frame(@,{})", 251 - kind)),
            251 => (self.u16()?, "same_frame_extended(@)".into()),
            252..=254 => (self.u16()?, format!("append_frame(@,{})", self.types(u16::from(kind - 251))?)),
            255 => {
                let delta = self.u16()?;
                let locals = self.u16()?;
                let locals = self.types(locals)?;
                let stack = self.u16()?;
                (delta, format!("full_frame(@,{{{locals}}},{{{}}})", self.types(stack)?))
            }
            128..=246 => return None,
        })
    }
}

struct Reader<'r, 'a> {
    rest: &'r [u8],
    names: &'r mut Names,
    class: &'r ClassFile<'a>,
    code: &'r classfile::Code<'a>,
    starts: &'r [bool],
}

impl Reader<'_, '_> {
    fn u8<F>(&mut self) -> Result<u8, Problem<F>> {
        let (&first, rest) =
            self.rest.split_first().ok_or_else(|| format_error("access beyond the end of attribute"))?;
        self.rest = rest;
        Ok(first)
    }

    fn u16<F>(&mut self) -> Result<u16, Problem<F>> {
        Ok(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    /// Reads a frame behind its kind. Changes the locals to those of this frame; returns the distance and the stack.
    fn frame<F>(
        &mut self,
        kind: u8,
        locals: &mut Vec<Type>,
        uninitialized: &mut bool,
    ) -> Result<(u16, Vec<Type>), Problem<F>> {
        match kind {
            0..=63 => Ok((u16::from(kind), Vec::new())),
            64..=127 => Ok((u16::from(kind - 64), vec![self.slot()?])),
            247 => Ok((self.u16()?, vec![self.slot()?])),
            248..=250 => {
                let delta = self.u16()?;
                let kept = locals.len().checked_sub(usize::from(251 - kind));
                locals.truncate(kept.ok_or_else(|| format_error("wrong locals size"))?);
                *uninitialized &= locals.contains(&Type::UninitializedThis);
                Ok((delta, Vec::new()))
            }
            251 => Ok((self.u16()?, Vec::new())),
            252..=254 => {
                let delta = self.u16()?;
                for _ in 0..kind - 251 {
                    locals.push(self.slot()?);
                }
                *uninitialized |= locals.contains(&Type::UninitializedThis);
                Ok((delta, Vec::new()))
            }
            255 => {
                let delta = self.u16()?;
                locals.clear();
                for _ in 0..self.u16()? {
                    locals.push(self.slot()?);
                }
                *uninitialized = locals.contains(&Type::UninitializedThis);
                let mut stack = Vec::new();
                for _ in 0..self.u16()? {
                    stack.push(self.slot()?);
                }
                Ok((delta, stack))
            }
            128..=246 => Err(format_error("reserved frame type")),
        }
    }

    /// Reads a type (JVMS 4.7.4, `verification_type_info`).
    fn slot<F>(&mut self) -> Result<Type, Problem<F>> {
        Ok(match self.u8()? {
            0 => Type::Top,
            1 => Type::Int,
            2 => Type::Float,
            3 => Type::Double,
            4 => Type::Long,
            5 => Type::Null,
            6 => Type::UninitializedThis,
            7 => {
                let index = self.u16()?;
                let (Constant::Class(_), Some(name)) =
                    (self.class.constants.get(index), self.class.constants.class_name(index))
                else {
                    return Err(format_error("bad class index"));
                };
                self.names.reference(name)
            }
            8 => {
                let offset = self.u16()?;
                let is_new = self.starts.get(usize::from(offset)) == Some(&true)
                    && self.code.bytes[usize::from(offset)] == Opcode::New as u8;
                if !is_new {
                    return Err(format_error("bad offset for Uninitialized"));
                }
                Type::Uninitialized(offset)
            }
            _ => return Err(format_error("bad verification type")),
        })
    }
}
