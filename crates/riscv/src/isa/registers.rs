//! Names of registers in the psABI's spelling.

/// The integer registers by number.
pub static INTEGER: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "s2",
    "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
];

/// The floating-point registers by number.
pub static FLOAT: [&str; 32] = [
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4", "fa5",
    "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
];

/// Rounding modes by number; empty where reserved.
pub const ROUNDING: [&str; 8] = ["rne", "rtz", "rdn", "rup", "rmm", "", "", "dyn"];

/// The number of the register called `name` in `names`; `x5` and `f5` work too.
#[must_use]
pub fn number(names: &[&str; 32], name: &str) -> Option<u8> {
    if let Some(at) = names.iter().position(|known| *known == name) {
        return u8::try_from(at).ok();
    }
    let integer = std::ptr::eq(names, &raw const INTEGER);
    match name.strip_prefix(if integer { 'x' } else { 'f' }).map(str::parse) {
        Some(Ok(number @ 0..32)) => Some(number),
        _ if integer && name == "fp" => Some(8),
        _ => None,
    }
}
