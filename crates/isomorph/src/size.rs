//! Sizes as people write them: 512M, 2G.

use std::fmt;
use std::str::FromStr;

/// An amount of memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize(pub u64);

impl FromStr for MemorySize {
    type Err = String;

    /// A whole number with K, M, G or T (powers of 1,024, any case, "iB" and "B" allowed); without one it means MiB, as for
    /// qemu's `-m`.
    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(split);
        let shift = match unit.to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
            "k" => 10,
            "" | "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err("write a size as in 512M or 2G".into()),
        };
        let number: u64 = digits.parse().map_err(|_| "write a size as in 512M or 2G".to_string())?;
        let bytes = number.checked_mul(1 << shift).filter(|b| *b <= 1 << 46).ok_or("that is more than a host has")?;
        Ok(Self(bytes.next_multiple_of(machine::PAGE_SIZE)))
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
        match units.iter().find(|(shift, _)| self.0 >= 1 << shift && self.0.is_multiple_of(1 << shift)) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A time for a person: "1.5 s", "2 min 3 s".
#[must_use]
pub fn human_time(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match seconds {
        0 if ns < 1_000_000 => format!("{} us", ns / 1000),
        0 => format!("{} ms", ns / 1_000_000),
        1..60 => format!("{seconds}.{} s", ns / 100_000_000 % 10),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `bytes` for a person: "1.4 GiB".
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    // Display only: a rounding in the third digit does no harm.
    #[allow(clippy::cast_precision_loss)]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        let parse = |text: &str| text.parse::<MemorySize>().map(|size| size.0);
        assert_eq!(parse("512M"), Ok(512 << 20));
        assert_eq!(parse("2G"), Ok(2 << 30));
        assert_eq!(parse("2GiB"), Ok(2 << 30));
        assert_eq!(parse("64mb"), Ok(64 << 20));
        assert_eq!(parse("256"), Ok(256 << 20));
        assert_eq!(parse("1K"), Ok(4096), "rounded up to a page");
        for bad in ["", "G", "-1G", "1.5G", "1X", "99999999999999999999", "1000000T"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(MemorySize(1 << 30).to_string(), "1G");
        assert_eq!(MemorySize(1536 << 20).to_string(), "1536M");
        assert_eq!(human_bytes(1500 << 20), "1.5 GiB");
        assert_eq!(human_bytes(5), "5 B");
    }
}
