//! Where fields are: instances and mirrors.
//!
//! Fields are laid out by size, largest first, behind those of the superclass; what alignment leaves free before them takes smaller ones.
//! References are neighbours, so that a class adds one span to the reference map.

use classfile::ClassFile;

use crate::known;
use crate::metadata::BasicType;
use crate::object::{FIELDS_OFFSET, MIRROR_CLASS_OFFSET, Span};

/// A field to be placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub kind: BasicType,
    pub is_static: bool,
    pub offset: u32,
    /// The collector treats it itself.
    pub untraced: bool,
    /// Its place is given.
    pub fixed: bool,
}

/// The result.
#[derive(Debug)]
pub(super) struct Layout {
    /// Offsets of the class's own fields, then of the injected ones.
    pub fields: Vec<Plan>,
    /// Behind the last instance field.
    pub fields_end: u32,
    /// Bytes of an instance.
    pub size: u32,
    /// References in an instance, superclasses included.
    pub spans: Vec<Span>,
    /// Bytes of the mirror.
    pub mirror_size: u32,
    /// Offset and number of static references.
    pub static_references: (u32, u32),
}

/// Lays out a class. `super_end` and `super_spans` are of the superclass; `mirror_start` is the size of an instance of `java.lang.Class`, or
/// `None` if this is that class.
pub(super) fn lay_out(file: &ClassFile<'_>, super_end: u32, super_spans: &[Span], mirror_start: Option<u32>) -> Layout {
    let mut fields: Vec<Plan> = file
        .fields
        .iter()
        .map(|field| Plan {
            kind: BasicType::of(field.descriptor[0]),
            is_static: field.is_static(),
            offset: 0,
            fixed: false,
            untraced: file.name == b"java/lang/ref/Reference" && field.name == b"referent",
        })
        .collect();
    for (_, _, descriptor) in injected(file.name) {
        fields.push(Plan {
            kind: BasicType::of(descriptor.as_bytes()[0]),
            is_static: false,
            offset: 0,
            untraced: false,
            fixed: false,
        });
    }
    if file.name == b"java/lang/Class" {
        fields[file.fields.len()].fixed = true;
    }
    let mut spans = super_spans.to_vec();
    #[allow(clippy::cast_possible_truncation, reason = "a small constant")]
    let start = super_end.max(FIELDS_OFFSET as u32);
    // The first field of a mirror is the class that it stands for, which the collector reads.
    let start = if file.name == b"java/lang/Class" { start + 4 } else { start };
    let (fields_end, references) = place(&mut fields, false, start);
    if references.1 > 0 {
        match spans.last_mut() {
            Some(last) if last.offset + last.count * 4 == references.0 => last.count += references.1,
            _ => spans.push(Span { offset: references.0, count: references.1 }),
        }
    }
    let size = fields_end.next_multiple_of(8);
    if file.name == b"java/lang/Class" {
        #[allow(clippy::cast_possible_truncation, reason = "a small constant")]
        let offset = MIRROR_CLASS_OFFSET as u32;
        fields[file.fields.len()].offset = offset;
    }
    let (mirror_end, static_references) = place(&mut fields, true, mirror_start.unwrap_or(size));
    Layout { fields, fields_end, size, spans, mirror_size: mirror_end.next_multiple_of(8), static_references }
}

/// The fields that the virtual machine adds to a class.
pub(super) fn injected(class: &[u8]) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    known::INJECTED.iter().copied().filter(move |(name, _, _)| name.as_bytes() == class)
}

/// Places static or instance fields from `start` on: where they end, and the offset and number of references that are traced.
fn place(fields: &mut [Plan], is_static: bool, start: u32) -> (u32, (u32, u32)) {
    let mut order: Vec<usize> =
        (0..fields.len()).filter(|&index| fields[index].is_static == is_static && !fields[index].fixed).collect();
    let class = |plan: Plan| match (plan.kind, plan.untraced) {
        (BasicType::Long | BasicType::Double, _) => 0,
        (BasicType::Reference, false) => 1,
        (BasicType::Reference, true) => 2,
        (kind, _) => 5 - kind.shift(),
    };
    order.sort_by_key(|&index| class(fields[index]));
    let mut next = start;
    let wide = order.iter().any(|&index| class(fields[index]) == 0);
    if wide {
        // What is before the first multiple of 8 takes small fields, but no traced references, which stay together.
        while !next.is_multiple_of(8) {
            let fits = |&index: &usize| {
                let plan = fields[index];
                class(plan) >= 2
                    && next.is_multiple_of(1 << plan.kind.shift())
                    && next + (1 << plan.kind.shift()) <= next.next_multiple_of(8)
            };
            let Some(at) = order.iter().position(fits) else { break };
            let index = order.remove(at);
            fields[index].offset = next;
            next += 1 << fields[index].kind.shift();
        }
    }
    let mut references = (0, 0);
    for index in order {
        let plan = &mut fields[index];
        let size = 1 << plan.kind.shift();
        next = next.next_multiple_of(size);
        plan.offset = next;
        if plan.kind == BasicType::Reference && !plan.untraced {
            if references.1 == 0 {
                references.0 = next;
            }
            references.1 += 1;
        }
        next += size;
    }
    (next, references)
}
