//! The control and status registers by number and name.

use std::ops::RangeInclusive;

macro_rules! registers {
    (
        single { $($name:ident $text:literal $number:literal;)* }
        families { $($first:ident $last:ident $family:literal $from:literal $numbers:expr;)* }
    ) => {
        $(#[doc = concat!("`", $text, "`")] pub const $name: u16 = $number;)*
        $(
            #[doc = concat!("The first `", $family, "` register.")]
            pub const $first: u16 = *$numbers.start();
            #[doc = concat!("The last `", $family, "` register.")]
            pub const $last: u16 = *$numbers.end();
        )*

        /// Registers with a name of their own, by number.
        const SINGLE: &[(u16, &str)] = &[$(($number, $text)),*];
        /// Registers that are numbered: the name, the number of the first, and where they are.
        const FAMILIES: &[(&str, u16, RangeInclusive<u16>)] = &[$(($family, $from, $numbers)),*];
    };
}

registers! {
    single {
        FFLAGS "fflags" 0x001;
        FRM "frm" 0x002;
        FCSR "fcsr" 0x003;
        SSTATUS "sstatus" 0x100;
        SIE "sie" 0x104;
        STVEC "stvec" 0x105;
        SCOUNTEREN "scounteren" 0x106;
        SENVCFG "senvcfg" 0x10a;
        SSCRATCH "sscratch" 0x140;
        SEPC "sepc" 0x141;
        SCAUSE "scause" 0x142;
        STVAL "stval" 0x143;
        SIP "sip" 0x144;
        STIMECMP "stimecmp" 0x14d;
        SATP "satp" 0x180;
        MSTATUS "mstatus" 0x300;
        MISA "misa" 0x301;
        MEDELEG "medeleg" 0x302;
        MIDELEG "mideleg" 0x303;
        MIE "mie" 0x304;
        MTVEC "mtvec" 0x305;
        MCOUNTEREN "mcounteren" 0x306;
        MENVCFG "menvcfg" 0x30a;
        MCOUNTINHIBIT "mcountinhibit" 0x320;
        MSCRATCH "mscratch" 0x340;
        MEPC "mepc" 0x341;
        MCAUSE "mcause" 0x342;
        MTVAL "mtval" 0x343;
        MIP "mip" 0x344;
        PMPCFG0 "pmpcfg0" 0x3a0;
        PMPCFG2 "pmpcfg2" 0x3a2;
        TSELECT "tselect" 0x7a0;
        TDATA1 "tdata1" 0x7a1;
        TDATA2 "tdata2" 0x7a2;
        TDATA3 "tdata3" 0x7a3;
        TINFO "tinfo" 0x7a4;
        MCYCLE "mcycle" 0xb00;
        MINSTRET "minstret" 0xb02;
        CYCLE "cycle" 0xc00;
        TIME "time" 0xc01;
        INSTRET "instret" 0xc02;
        MVENDORID "mvendorid" 0xf11;
        MARCHID "marchid" 0xf12;
        MIMPID "mimpid" 0xf13;
        MHARTID "mhartid" 0xf14;
        MCONFIGPTR "mconfigptr" 0xf15;
    }
    families {
        MHPMEVENT3 MHPMEVENT31 "mhpmevent" 3 0x323..=0x33f;
        PMPADDR0 PMPADDR15 "pmpaddr" 0 0x3b0..=0x3bf;
        MHPMCOUNTER3 MHPMCOUNTER31 "mhpmcounter" 3 0xb03..=0xb1f;
        HPMCOUNTER3 HPMCOUNTER31 "hpmcounter" 3 0xc03..=0xc1f;
    }
}

/// The name of register `number`, if it has one.
#[must_use]
pub fn name(number: u16) -> Option<String> {
    if let Some((_, name)) = SINGLE.iter().find(|(known, _)| *known == number) {
        return Some((*name).into());
    }
    let (family, from, numbers) = FAMILIES.iter().find(|(.., numbers)| numbers.contains(&number))?;
    Some(format!("{family}{}", from + (number - numbers.start())))
}

/// The number of the register called `name`.
#[must_use]
pub fn number(name: &str) -> Option<u16> {
    if let Some((number, _)) = SINGLE.iter().find(|(_, known)| *known == name) {
        return Some(*number);
    }
    FAMILIES.iter().find_map(|(family, from, numbers)| {
        let index: u16 = name.strip_prefix(family)?.parse().ok()?;
        let number = numbers.start().checked_add(index.checked_sub(*from)?)?;
        numbers.contains(&number).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_inverse() {
        let named =
            (0..4096).filter(|csr| name(*csr).inspect(|name| assert_eq!(number(name), Some(*csr))).is_some()).count();
        assert!(named > 140, "{named}");
        assert_eq!(
            (name(0x3a2).as_deref(), number("hpmcounter2"), number("hpmcounter32")),
            (Some("pmpcfg2"), None, None)
        );
    }
}
