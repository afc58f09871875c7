//! Opcodes that the interpreter puts in place of others, once their constants are resolved.

macro_rules! quick {
    ($($name:ident = $code:literal for $original:literal,)*) => {
        $(#[doc = concat!("In place of `", $original, "`.")] pub(super) const $name: u8 = $code;)*
    };
}

quick! {
    GETFIELD_BYTE = 203 for "getfield",
    GETFIELD_CHAR = 204 for "getfield",
    GETFIELD_SHORT = 205 for "getfield",
    GETFIELD_WORD = 206 for "getfield",
    GETFIELD_LONG = 207 for "getfield",
    GETFIELD_VOLATILE = 208 for "getfield",
    PUTFIELD_BYTE = 209 for "putfield",
    PUTFIELD_SHORT = 210 for "putfield",
    PUTFIELD_WORD = 211 for "putfield",
    PUTFIELD_LONG = 212 for "putfield",
    PUTFIELD_REFERENCE = 213 for "putfield",
    PUTFIELD_OTHER = 214 for "putfield",
    GETSTATIC_QUICK = 215 for "getstatic",
    PUTSTATIC_QUICK = 216 for "putstatic",
    NEW_QUICK = 217 for "new",
    ANEWARRAY_QUICK = 218 for "anewarray",
    CHECKCAST_QUICK = 219 for "checkcast",
    INSTANCEOF_QUICK = 220 for "instanceof",
    INVOKESTATIC_QUICK = 221 for "invokestatic",
    INVOKESPECIAL_QUICK = 222 for "invokespecial",
    INVOKEVIRTUAL_QUICK = 223 for "invokevirtual",
    INVOKEVIRTUAL_DIRECT = 224 for "invokevirtual",
    INVOKEHANDLE_QUICK = 225 for "invokevirtual",
    INVOKEINTERFACE_QUICK = 226 for "invokeinterface",
    INVOKEDYNAMIC_QUICK = 227 for "invokedynamic",
    LDC_REFERENCE = 228 for "ldc",
    LDC_W_REFERENCE = 229 for "ldc_w",
    LDC_WORD = 230 for "ldc",
    GETSTATIC_WORD = 231 for "getstatic",
    INVOKESPECIAL_INTERFACE = 232 for "invokespecial",
}

/// Bytes of a call instruction with this opcode.
#[inline(always)]
pub(super) fn call_length(opcode: u8) -> usize {
    match opcode {
        0xB9 | 0xBA | INVOKEINTERFACE_QUICK | INVOKEDYNAMIC_QUICK => 5,
        _ => 3,
    }
}

/// The opcode of the class file that an opcode stands for.
pub(super) fn original(opcode: u8) -> u8 {
    match opcode {
        GETSTATIC_QUICK | GETSTATIC_WORD => 0xB2,
        PUTSTATIC_QUICK => 0xB3,
        GETFIELD_BYTE..=GETFIELD_VOLATILE => 0xB4,
        PUTFIELD_BYTE..=PUTFIELD_OTHER => 0xB5,
        INVOKEVIRTUAL_QUICK | INVOKEVIRTUAL_DIRECT | INVOKEHANDLE_QUICK => 0xB6,
        INVOKESPECIAL_QUICK | INVOKESPECIAL_INTERFACE => 0xB7,
        INVOKESTATIC_QUICK => 0xB8,
        INVOKEINTERFACE_QUICK => 0xB9,
        INVOKEDYNAMIC_QUICK => 0xBA,
        NEW_QUICK => 0xBB,
        ANEWARRAY_QUICK => 0xBD,
        CHECKCAST_QUICK => 0xC0,
        INSTANCEOF_QUICK => 0xC1,
        LDC_REFERENCE | LDC_WORD => 0x12,
        LDC_W_REFERENCE => 0x13,
        other => other,
    }
}
