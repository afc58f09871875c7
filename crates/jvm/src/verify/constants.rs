//! What instructions demand of the constants they name.

use classfile::opcode::Opcode;
use classfile::{ClassFile, Constant};

use super::Problem;
use super::types::{Names, Type};

/// The class that the constant at `index` names.
pub(super) fn class_at<'a, F>(class: &ClassFile<'a>, index: u16) -> Result<&'a [u8], Problem<F>> {
    class.constants.class_name(index).ok_or_else(|| bad_constant(class, index))
}

/// The problem of an instruction whose constant has the wrong kind, or is none.
pub(super) fn bad_constant<F>(class: &ClassFile<'_>, index: u16) -> Problem<F> {
    let reason = format!("Constant pool index {index} is invalid");
    let name = classfile::mutf8::decode(class.name).replace('/', ".");
    if index == 0 || usize::from(index) >= class.constants.len() {
        return Problem::because(format!("Illegal constant pool index {index} in class {name}"), reason);
    }
    Problem::because(format!("Illegal type at constant pool entry {index} in class {name}"), reason)
}

/// The type of the constant that `ldc`, `ldc_w` or `ldc2_w` pushes.
pub(super) fn loaded<F>(
    names: &mut Names,
    class: &ClassFile<'_>,
    opcode: Opcode,
    index: u16,
) -> Result<Type, Problem<F>> {
    let major = class.major_version;
    let of = match class.constants.get(index) {
        Constant::Integer(_) => Type::Int,
        Constant::Float(_) => Type::Float,
        Constant::Long(_) => Type::Long,
        Constant::Double(_) => Type::Double,
        Constant::String(_) => names.reference(b"java/lang/String"),
        Constant::Class(_) if major >= 49 => names.reference(b"java/lang/Class"),
        Constant::MethodHandle { .. } => names.reference(b"java/lang/invoke/MethodHandle"),
        Constant::MethodType(_) => names.reference(b"java/lang/invoke/MethodType"),
        Constant::Dynamic(_) => {
            let (_, descriptor) = class.constants.dynamic(index).unwrap_or_default();
            let field = classfile::names::FieldType::parse(descriptor).ok_or_else(|| bad_constant(class, index))?;
            names.of(field)
        }
        _ => return Err(bad_constant(class, index)),
    };
    let wide = of.second().is_some();
    if wide != (opcode == Opcode::Ldc2W) {
        return Err(bad_constant(class, index));
    }
    Ok(of)
}
