//! Names of registers in the psABI's spelling, and of the control and status registers.

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

/// Control and status registers that have a name of their own, by number.
pub const CSR: [(u16, &str); 63] = [
    (0x001, "fflags"),
    (0x002, "frm"),
    (0x003, "fcsr"),
    (0x100, "sstatus"),
    (0x104, "sie"),
    (0x105, "stvec"),
    (0x106, "scounteren"),
    (0x10a, "senvcfg"),
    (0x140, "sscratch"),
    (0x141, "sepc"),
    (0x142, "scause"),
    (0x143, "stval"),
    (0x144, "sip"),
    (0x14d, "stimecmp"),
    (0x180, "satp"),
    (0x300, "mstatus"),
    (0x301, "misa"),
    (0x302, "medeleg"),
    (0x303, "mideleg"),
    (0x304, "mie"),
    (0x305, "mtvec"),
    (0x306, "mcounteren"),
    (0x30a, "menvcfg"),
    (0x320, "mcountinhibit"),
    (0x340, "mscratch"),
    (0x341, "mepc"),
    (0x342, "mcause"),
    (0x343, "mtval"),
    (0x344, "mip"),
    (0x3a0, "pmpcfg0"),
    (0x3a2, "pmpcfg2"),
    (0x3a4, "pmpcfg4"),
    (0x3a6, "pmpcfg6"),
    (0x3a8, "pmpcfg8"),
    (0x3aa, "pmpcfg10"),
    (0x3ac, "pmpcfg12"),
    (0x3ae, "pmpcfg14"),
    (0x3b0, "pmpaddr0"),
    (0x3b1, "pmpaddr1"),
    (0x3b2, "pmpaddr2"),
    (0x3b3, "pmpaddr3"),
    (0x3b4, "pmpaddr4"),
    (0x3b5, "pmpaddr5"),
    (0x3b6, "pmpaddr6"),
    (0x3b7, "pmpaddr7"),
    (0x3b8, "pmpaddr8"),
    (0x3b9, "pmpaddr9"),
    (0x3ba, "pmpaddr10"),
    (0x3bb, "pmpaddr11"),
    (0x3bc, "pmpaddr12"),
    (0x3bd, "pmpaddr13"),
    (0x3be, "pmpaddr14"),
    (0x3bf, "pmpaddr15"),
    (0xb00, "mcycle"),
    (0xb02, "minstret"),
    (0xc00, "cycle"),
    (0xc01, "time"),
    (0xc02, "instret"),
    (0xf11, "mvendorid"),
    (0xf12, "marchid"),
    (0xf13, "mimpid"),
    (0xf14, "mhartid"),
    (0xf15, "mconfigptr"),
];

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

/// The name of a control and status register, if it has one.
#[must_use]
pub fn csr_name(number: u16) -> Option<&'static str> {
    CSR.binary_search_by_key(&number, |(number, _)| *number).ok().map(|at| CSR[at].1)
}

/// The number of the control and status register called `name`.
#[must_use]
pub fn csr_number(name: &str) -> Option<u16> {
    CSR.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
}
