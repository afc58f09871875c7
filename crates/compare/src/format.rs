//! Numbers for people: three digits and a unit.

/// Three significant digits.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    let (scale, unit) = units.iter().rfind(|(scale, _)| value >= 0.9995 * scale).unwrap_or(&units[0]);
    format!("{} {unit}", digits(value / scale))
}

/// A time in nanoseconds.
#[must_use]
pub fn time(ns: f64) -> String {
    scaled(ns, &[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")])
}

/// An amount of memory in bytes.
#[must_use]
pub fn memory(bytes: f64) -> String {
    scaled(bytes, &[(1e3, "kB"), (1e6, "MB"), (1e9, "GB")])
}

/// Bytes a second.
#[must_use]
pub fn rate(bytes_per_s: f64) -> String {
    format!("{}/s", memory(bytes_per_s))
}

/// A speed, of native speed.
#[must_use]
pub fn speed(part: f64) -> String {
    let percent = part * 100.0;
    match percent {
        percent if percent >= 1000.0 => format!("{}x", digits(part)),
        percent if percent >= 9.95 => format!("{percent:.0}%"),
        percent if percent >= 0.995 => format!("{percent:.1}%"),
        _ => format!("{percent:.2}%"),
    }
}

/// A round value as axes show it: without zeros behind the point.
#[must_use]
pub fn round(text: &str) -> String {
    let digits = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    format!("{number}{unit}")
}

/// A spread, relative to its median.
#[must_use]
pub fn spread(relative: f64) -> String {
    format!("±{:.0}%", relative * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!([12.0, 1234.0, 99_960_000.0, 2.5e9].map(time), ["12.0 ns", "1.23 µs", "100 ms", "2.50 s"]);
        assert_eq!([500.0, 1_500_000.0, 2.5e10].map(memory), ["0.50 kB", "1.50 MB", "25.0 GB"]);
        assert_eq!([0.884, 0.0312, 0.001, 1.0, 12.5].map(speed), ["88%", "3.1%", "0.10%", "100%", "12.5x"]);
        assert_eq!(rate(3e9), "3.00 GB/s");
        assert_eq!(spread(0.034), "±3%");
        assert_eq!(["10.0 ms", "100 s", "0.50%", "2.00x"].map(round), ["10 ms", "100 s", "0.5%", "2x"]);
        assert_eq!(time(999.8), "1.00 µs");
    }
}
