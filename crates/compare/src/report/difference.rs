//! What differs between two records.

use std::fmt::Write;

use crate::format::{memory, time};
use crate::record::{Figure, Record};
use crate::statistics::Spread;
use crate::workload::STARTUP;

/// Changes smaller than this are no changes, whatever their spreads say.
const LEAST: f64 = 0.03;

/// How a figure of one record stands to that of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Their spreads overlap, or it is too small to matter.
    Same,
    /// The second is less: faster, smaller.
    Better,
    /// The second is more.
    Worse,
}

fn change(a: Spread, b: Spread) -> Change {
    let ratio = b.median / a.median;
    if (ratio - 1.0).abs() < LEAST {
        Change::Same
    } else if b.high < a.low {
        Change::Better
    } else if b.low > a.high {
        Change::Worse
    } else {
        Change::Same
    }
}

/// The times and memory that both records have, side by side, `a` first.
#[must_use]
pub fn report(a: &Record, b: &Record) -> String {
    let mut out = String::new();
    for (name, record) in [("A", a), ("B", b)] {
        let _ = writeln!(out, "{name}: {}; {}", record.isomorph, record.host.line());
    }
    if a.host != b.host && (&a.host.processor, a.host.processors_count) != (&b.host.processor, b.host.processors_count)
    {
        let _ =
            writeln!(out, "These are two hosts: times compare as hosts, only speeds of native compare as machines.");
    }
    let mut counts = (0, 0, 0);
    let mut lines = String::new();
    for workload in &a.workloads {
        if b.workloads.iter().any(|other| other.name == workload.name && other.amount != workload.amount) {
            let _ = writeln!(lines, "{}: the amounts of work differ", workload.title);
            continue;
        }
        for engine in &a.engines {
            let pair = a.figure(&workload.name, &engine.name).zip(b.figure(&workload.name, &engine.name));
            let Some((one, other)) = pair else { continue };
            let what = format!("{:20} {:28}", workload.title, engine.title);
            line(&mut lines, &what, (one, other), Figure::time_ns, time, &mut counts);
            if workload.name == STARTUP {
                let what = format!("{:20} {:28}", "memory", engine.title);
                line(&mut lines, &what, (one, other), |figure| figure.resident_bytes, memory, &mut counts);
            }
        }
    }
    let (same, better, worse) = counts;
    if same + better + worse == 0 {
        let _ = writeln!(out, "\nThey have no figure in common.");
    } else {
        let _ = writeln!(out, "\n{:49} {:>9} {:>9} {:>7}", "", "A", "B", "B/A");
        out.push_str(&lines);
        let _ =
            writeln!(out, "\n{better} better in B, {worse} worse, {same} the same (spreads overlap, or less than 3%)");
    }
    out
}

fn line(
    out: &mut String,
    what: &str,
    (a, b): (&Figure, &Figure),
    of: fn(&Figure) -> Option<Spread>,
    format: fn(f64) -> String,
    counts: &mut (u32, u32, u32),
) {
    let Some((a, b)) = of(a).zip(of(b)) else { return };
    let (count, word) = match change(a, b) {
        Change::Same => (&mut counts.0, ""),
        Change::Better => (&mut counts.1, "better"),
        Change::Worse => (&mut counts.2, "worse"),
    };
    *count += 1;
    let ratio = b.median / a.median;
    let row = format!("{what} {:>9} {:>9} {ratio:>7.2}  {word}", format(a.median), format(b.median));
    let _ = writeln!(out, "{}", row.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_that_overlap_are_no_change() {
        let spread = |low, median, high| Spread { low, median, high };
        let a = spread(9.0, 10.0, 11.0);
        assert_eq!(change(a, spread(10.5, 12.0, 14.0)), Change::Same);
        assert_eq!(change(a, spread(11.5, 12.0, 14.0)), Change::Worse);
        assert_eq!(change(a, spread(4.0, 5.0, 6.0)), Change::Better);
        assert_eq!(change(spread(10.0, 10.0, 10.0), spread(10.1, 10.1, 10.1)), Change::Same);
    }
}
