//! What calls do to a frame: arguments, constructors, and what they may be called on.

use classfile::names::MethodType;
use classfile::opcode::{Instruction, Opcode};
use classfile::{Constant, mutf8};

use super::constants::{bad_constant, class_at};
use super::effects::{Effect, Place};
use super::frame::{Expect, State};
use super::types::Type;
use super::{Hierarchy, MemberKind, Problem};

/// `invokedynamic`.
pub(super) fn dynamic<H: Hierarchy>(
    place: &Place<'_>,
    state: &mut State<'_, H>,
    instruction: &Instruction<'_>,
    constant: u16,
) -> Result<(), Problem<H::Failure>> {
    let class = place.class;
    if class.major_version < 51 {
        return Err(Problem::Format(format!(
            "invokedynamic instructions not supported by this class file version ({}), class {}",
            class.major_version,
            mutf8::decode(class.name)
        )));
    }
    let (Constant::InvokeDynamic(_), Some((name, descriptor))) =
        (class.constants.get(constant), class.constants.dynamic(constant))
    else {
        return Err(bad_constant(class, constant));
    };
    let method = MethodType::parse(descriptor).ok_or_else(|| bad_constant(class, constant))?;
    if name.starts_with(b"<") {
        return Err(Problem::new("Illegal call to internal method"));
    }
    if instruction.bytes[3..] != [0, 0] {
        return Err(Problem::new("Third and fourth operand bytes of invokedynamic must be zero"));
    }
    pop_arguments(state, &method)?;
    push_result(state, &method)
}

/// The other calls.
pub(super) fn method<H: Hierarchy>(
    place: &Place<'_>,
    state: &mut State<'_, H>,
    instruction: &Instruction<'_>,
    constant: u16,
) -> Result<Effect, Problem<H::Failure>> {
    let class = place.class;
    let opcode = instruction.opcode;
    // Interfaces have had static and private methods since version 52.
    let allowed = match (class.constants.get(constant), opcode) {
        (Constant::Method(_), Opcode::InvokeInterface) | (Constant::InterfaceMethod(_), Opcode::InvokeVirtual) => false,
        (Constant::Method(_), _) | (Constant::InterfaceMethod(_), Opcode::InvokeInterface) => true,
        (Constant::InterfaceMethod(_), _) => class.major_version >= 52,
        _ => false,
    };
    if !allowed {
        return Err(bad_constant(class, constant));
    }
    let member = class.constants.member(constant).ok_or_else(|| bad_constant(class, constant))?;
    let called = MethodType::parse(member.descriptor).ok_or_else(|| bad_constant(class, constant))?;
    let target = state.names.reference(member.class);
    let this = Type::Reference(place.this);
    let constructs = member.name == b"<init>";
    if member.name.starts_with(b"<") && !(constructs && opcode == Opcode::InvokeSpecial) {
        return Err(Problem::new("Illegal call to internal method"));
    }
    if opcode == Opcode::InvokeSpecial && !constructs {
        check_special(place, state, target, member.class)?;
    }
    if opcode == Opcode::InvokeInterface {
        if u16::from(instruction.bytes[3]) != called.argument_slots.saturating_add(1) {
            return Err(Problem::new("Inconsistent args count operand in invokeinterface"));
        }
        if instruction.bytes[4] != 0 {
            return Err(Problem::new("Fourth operand byte of invokeinterface must be zero"));
        }
    }
    pop_arguments(state, &called)?;
    let mut effect = Effect::Plain;
    match opcode {
        Opcode::InvokeStatic => {}
        Opcode::InvokeSpecial if constructs => effect = construct(place, state, target, &member)?,
        Opcode::InvokeSpecial => {
            state.pop_type(this)?;
        }
        Opcode::InvokeVirtual => {
            let object = state.pop_type(target)?;
            place.check_protected(state, object, &member, MemberKind::Method, opcode)?;
        }
        _ => {
            state.pop_type(target)?;
        }
    }
    push_result(state, &called)?;
    Ok(effect)
}

fn pop_arguments<H: Hierarchy>(state: &mut State<'_, H>, method: &MethodType<'_>) -> Result<(), Problem<H::Failure>> {
    let parameters: Vec<_> = method.parameters().collect();
    for &parameter in parameters.iter().rev() {
        let of = state.names.of(parameter);
        state.pop_type(of)?;
    }
    Ok(())
}

fn push_result<H: Hierarchy>(state: &mut State<'_, H>, method: &MethodType<'_>) -> Result<(), Problem<H::Failure>> {
    match state.names.of(method.returns()) {
        Type::Top => Ok(()),
        of => state.push(of),
    }
}

/// `invokespecial` calls methods of this class, of superclasses and of direct superinterfaces.
fn check_special<H: Hierarchy>(
    place: &Place<'_>,
    state: &mut State<'_, H>,
    target: Type,
    name: &[u8],
) -> Result<(), Problem<H::Failure>> {
    let class = place.class;
    if place.old {
        if name != class.name && !state.hierarchy.has_superclass(name) {
            return Err(Problem::new("Illegal use of nonvirtual function call"));
        }
        return Ok(());
    }
    let is_direct = class.interfaces.iter().any(|index| class.constants.class_name(index) == Some(name));
    if name == class.name || is_direct || class.super_name == Some(name) {
        return Ok(());
    }
    if !state.assignable(Type::Reference(place.this), target, false)? {
        return Err(Problem::because(
            "Bad invokespecial instruction: current class isn't assignable to reference class.",
            "Error exists in the bytecode".into(),
        ));
    }
    if !name.starts_with(b"[") && state.hierarchy.is_interface(name).map_err(Problem::Load)? {
        return Err(Problem::because(
            "Bad invokespecial instruction: interface method reference is in an indirect superinterface.",
            "Error exists in the bytecode".into(),
        ));
    }
    Ok(())
}

/// A call of a constructor.
fn construct<H: Hierarchy>(
    place: &Place<'_>,
    state: &mut State<'_, H>,
    target: Type,
    member: &classfile::constants::Member<'_>,
) -> Result<Effect, Problem<H::Failure>> {
    let object = state.pop(Expect::Reference)?;
    match object {
        Type::UninitializedThis => {
            if member.class != place.class.name && Some(member.class) != place.class.super_name {
                return Err(Problem::because("Bad <init> method call", "Error exists in the bytecode".into()));
            }
            state.initialize(object, Type::Reference(place.this));
            Ok(Effect::ThisInitialized)
        }
        Type::Uninitialized(offset) => {
            let made = Instruction::decode(place.code.bytes, offset);
            let made = made.ok().filter(|instruction| instruction.opcode == Opcode::New);
            let Some(index) = made.and_then(|instruction| instruction.constant()) else {
                return Err(Problem::new("Expecting new instruction"));
            };
            let made = state.names.reference(class_at(place.class, index)?);
            if made != target {
                return Err(Problem::because(
                    "Call to wrong <init> method",
                    format!(
                        "Type {} is not assignable to {}",
                        state.names.describe(made),
                        state.names.describe(target)
                    ),
                ));
            }
            if state.hierarchy.has_superclass(member.class) {
                let elsewhere = state.hierarchy.is_protected_elsewhere(
                    member.class,
                    member.name,
                    member.descriptor,
                    MemberKind::Method,
                );
                if elsewhere.map_err(Problem::Load)? && !state.assignable(made, Type::Reference(place.this), true)? {
                    return Err(Problem::new("Bad access to protected <init> method"));
                }
            }
            state.initialize(object, made);
            Ok(Effect::ObjectInitialized)
        }
        _ => {
            let depth = state.frame.stack.len();
            let reason = format!(
                "Type {} (current frame, stack[{depth}]) is not assignable to uninitialized",
                state.names.describe(object)
            );
            Err(Problem::because("Bad operand type when invoking <init>", reason))
        }
    }
}
