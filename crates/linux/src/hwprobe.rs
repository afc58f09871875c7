//! `riscv_hwprobe`: what the processor has, asked by programs that choose among their routines. Linux's Documentation/arch/riscv/hwprobe.rst.

use crate::space::AddressSpace;
use crate::sys::{EINVAL, low};

/// Pairs that are answered in one call, at most: far more than there are keys.
const PAIRS_MAX: u64 = 4096;

/// Keys and their values. The vendor, the architecture and the implementation are 0: none that anybody has registered.
const VALUES: [(u64, u64); 8] = [
    (0, 0),
    (1, 0),
    (2, 0),
    // BASE_BEHAVIOR: IMA.
    (3, 1),
    (4, EXTENSIONS),
    // CPUPERF_0, and MISALIGNED_SCALAR_PERF that replaces it: misaligned accesses are fast.
    (5, 3),
    (8, riscv::hart::TIME_BASE_HZ),
    (9, 3),
];

/// `IMA_EXT_0`: F and D, C, Zba, Zbb, Zbs, Zbc, Zbkb, Zbkc, Zbkx, Zknd, Zkne, Zknh, Zksed, Zksh, Zicond, Zawrs.
const EXTENSIONS: u64 = 1 | 1 << 1 | 7 << 3 | 0x1ff << 7 | 1 << 35 | 1 << 48;

/// `riscv_hwprobe(pairs, count, cpusetsize, cpus, flags)`: all harts are the same, so it does not matter of which it is asked.
///
/// # Errors
/// Negative error numbers.
pub(crate) fn riscv_hwprobe(space: &AddressSpace, [pairs, count, _, _, flags, _]: [u64; 6]) -> Result<i64, i64> {
    // RISCV_HWPROBE_WHICH_CPUS asks for harts that have what the pairs say.
    if low(flags) != 0 || count > PAIRS_MAX {
        return Err(EINVAL);
    }
    for at in (0..count).map(|number| pairs.wrapping_add(16 * number)) {
        let key = space.read_u64(at)?;
        let value = VALUES.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
        // An unknown key becomes -1.
        let answer = [if value.is_some() { key } else { u64::MAX }, value.unwrap_or(0)];
        space.write(at, &answer.map(u64::to_le_bytes).concat())?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_have_values() {
        let space = AddressSpace::new().unwrap();
        let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let at = space.map(0, 4096, 3, anonymous, u64::MAX, 0).unwrap();
        space.write(at, &[3, 0, 4, 0, 77, 1, 9, 0].map(u64::to_le_bytes).concat()).unwrap();
        assert_eq!(riscv_hwprobe(&space, [at, 4, 0, 0, 0, 0]), Ok(0));
        let word = |number: u64| space.read_u64(at + 8 * number).unwrap();
        assert_eq!([word(0), word(1)], [3, 1]);
        assert_eq!(word(3), EXTENSIONS);
        assert_eq!([word(4), word(5)], [u64::MAX, 0]);
        assert_eq!(word(7), 3);
        assert_eq!(riscv_hwprobe(&space, [at, u64::MAX, 0, 0, 0, 0]), Err(EINVAL));
        assert_eq!(riscv_hwprobe(&space, [at + 4090, 1, 0, 0, 0, 0]), Err(-i64::from(libc::EFAULT)));
    }
}
