//! The report for a terminal: a block of bars for each workload, then a summary by engine, the claims, and what is missing.

use std::fmt::Write;

use crate::claims::{self, Unit, Verdict, is_computing};
use crate::engine::NATIVE;
use crate::format::{memory, speed, spread, time};
use crate::mechanism::Value;
use crate::record::{EngineRecord, Figure, Record};
use crate::workload::STARTUP;

/// How the terminal is.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Columns.
    pub width: usize,
    /// Whether it shows colours.
    pub colour: bool,
}

/// Colours of bars.
const OURS: &str = "36";
const PEERS: &str = "90";

const TITLE: usize = 28;
/// What a line of a block has beside its bar.
const BESIDE_BAR: usize = 2 + TITLE + 1 + 8 + 6 + 2 + 7 + 9 + 9;
const BARS: std::ops::RangeInclusive<usize> = 8..=40;

/// The whole report.
#[must_use]
pub fn report(record: &Record, style: Style) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}", record.host.line());
    let _ = writeln!(
        out,
        "{}",
        style.dim("Bars and percent are speeds of native speed; behind them: the first iteration, and memory at most.")
    );
    for workload in &record.workloads {
        out.push('\n');
        if workload.name == STARTUP {
            starts(&mut out, record, style);
        } else {
            block(&mut out, record, style, workload);
        }
    }
    summary(&mut out, record, style);
    mechanisms(&mut out, record, style);
    tested_claims(&mut out, record, style);
    missing(&mut out, record);
    out
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn bar_width(self) -> usize {
        self.width.saturating_sub(BESIDE_BAR).clamp(*BARS.start(), *BARS.end())
    }

    /// A bar of `part` of the full width, padded. Ours are coloured.
    fn bar(self, part: f64, width: usize, engine: &EngineRecord) -> String {
        let code = match engine.name.as_str() {
            NATIVE => "37",
            _ if engine.is_ours => OURS,
            _ => PEERS,
        };
        self.coloured_bar(part, width, code)
    }

    fn coloured_bar(self, part: f64, width: usize, code: &str) -> String {
        let bar = bar(part, width);
        let padding = " ".repeat(width - bar.chars().count().min(width));
        self.paint(code, &bar) + &padding
    }
}

/// Blocks and eighths of one.
fn bar(part: f64, width: usize) -> String {
    const EIGHTHS: [char; 8] =
        ['\u{258f}', '\u{258e}', '\u{258d}', '\u{258c}', '\u{258b}', '\u{258a}', '\u{2589}', '\u{2588}'];
    let part = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a width of the terminal's")]
    let eighths = ((part * width as f64 * 8.0).round() as usize).max(1);
    let mut bar: String = std::iter::repeat_n(EIGHTHS[7], eighths / 8).collect();
    if !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[eighths % 8 - 1]);
    }
    bar
}

/// The first words of a title that fit.
fn title(text: &str) -> String {
    text.chars().take(TITLE).collect()
}

fn block(out: &mut String, record: &Record, style: Style, workload: &crate::record::WorkloadRecord) {
    let heading = format!("{} - {}", style.bold(&workload.title), workload.what);
    let _ = writeln!(out, "{heading}");
    let width = style.bar_width();
    let engines = || record.present().filter_map(|engine| Some((engine, record.entry(&workload.name, &engine.name)?)));
    // Full width is the fastest, or native code.
    let top = engines().filter_map(|(engine, _)| record.speed(&workload.name, &engine.name)).fold(1.0, f64::max);
    for (engine, figure) in engines() {
        let _ = write!(out, "  {:TITLE$} ", title(&engine.title));
        let Some(steady) = figure.steady_ns else {
            let gap = figure.gap.as_deref().unwrap_or("nothing was measured");
            let _ = writeln!(out, "{}", style.dim(&format!("       - {gap}")));
            continue;
        };
        let part = record.speed(&workload.name, &engine.name);
        let _ = write!(out, "{:>8}{:>6}  ", workload.value(steady.median), spread(steady.relative()));
        let _ = write!(
            out,
            "{}{:>7}",
            style.bar(part.unwrap_or(0.0) / top, width, engine),
            part.map_or(String::new(), speed)
        );
        let _ = writeln!(out, "{}", style.dim(&extras(figure)));
    }
}

/// The first iteration's time, and memory.
fn extras(figure: &Figure) -> String {
    let cold = figure.first_ns.map_or(String::new(), |first| time(first.median));
    let resident = figure.resident_bytes.map_or(String::new(), |bytes| memory(bytes.median));
    format!("{cold:>9}{resident:>9}").trim_end().to_owned()
}

/// Start-up and memory: bars of the logarithm, for they differ by a thousand.
fn starts(out: &mut String, record: &Record, style: Style) {
    let _ =
        writeln!(out, "{} - to the first word of a program, or to a machine's first process", style.bold("start-up"));
    let width = style.bar_width();
    let engines: Vec<_> =
        record.present().filter_map(|engine| Some((engine, record.entry(STARTUP, &engine.name)?))).collect();
    let times = || engines.iter().filter_map(|(_, figure)| figure.start_ns.map(|start| start.median));
    let (least, most) = (times().fold(f64::MAX, f64::min) / 2.0, times().fold(0.0, f64::max));
    for (engine, figure) in &engines {
        let _ = write!(out, "  {:TITLE$} ", title(&engine.title));
        let Some(start) = figure.start_ns else {
            let _ = writeln!(out, "{}", style.dim(figure.gap.as_deref().unwrap_or("nothing was measured")));
            continue;
        };
        let part = (start.median / least).ln() / (most / least).ln();
        let _ = write!(out, "{:>8}{:>6}  ", time(start.median), spread(start.relative()));
        let resident = figure.resident_bytes.map_or(String::new(), |bytes| memory(bytes.median));
        let _ = writeln!(out, "{}{:>16}", style.bar(part, width, engine), resident);
    }
    let _ = writeln!(out, "  {}", style.dim("(bars are logarithmic; at the right: memory resident at most)"));
}

fn summary(out: &mut String, record: &Record, style: Style) {
    let asks_host = |name: &str| !is_computing(name);
    let has = |wanted: &dyn Fn(&str) -> bool| {
        record.workloads.iter().any(|workload| workload.name != STARTUP && wanted(&workload.name))
    };
    if !has(&|_| true) {
        return;
    }
    let width = style.bar_width();
    let _ = writeln!(out, "\n{} - geometric mean, of native speed: computing; asking the host", style.bold("speed"));
    for engine in record.present() {
        let computing = record.mean_speed(&engine.name, is_computing);
        let asking = record.mean_speed(&engine.name, asks_host);
        let text = |part: Option<f64>| part.map_or("-".into(), speed);
        let _ = write!(out, "  {:TITLE$} {:>8}{:>8}  ", title(&engine.title), text(computing), text(asking));
        let _ = writeln!(out, "{}", style.bar(computing.or(asking).unwrap_or(0.0), width, engine).trim_end());
    }
}

fn mechanisms(out: &mut String, record: &Record, style: Style) {
    let width = style.bar_width();
    for mechanism in &record.mechanisms {
        let _ = writeln!(out, "\n{} - {}", style.bold(&mechanism.title), mechanism.what);
        let top = mechanism.values.iter().map(|value| value.value.median).fold(0.0, f64::max);
        for Value { title: of, is_ours, value } in &mechanism.values {
            let bar = style.coloured_bar(value.median / top, width, if *is_ours { OURS } else { PEERS });
            let most = format!("to {}", mechanism.unit.show(value.high));
            let shown = mechanism.unit.show(value.median);
            let _ = writeln!(out, "  {:TITLE$} {shown:>12}    {bar}{:>16}", title(of), style.dim(&most));
        }
    }
}

fn tested_claims(out: &mut String, record: &Record, style: Style) {
    let tested = claims::tested(record);
    if tested.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{} - what is said, and what was measured here", style.bold("claims"));
    let mut last = "";
    for claims::Tested { claim, engine, value, verdict } in tested {
        if last != claim.about {
            let _ = writeln!(out, "  {}: {}", claim.about, claim.stated);
            last = claim.about;
        }
        let value = match claim.unit {
            Unit::Speed => speed(value),
            Unit::Time => time(value),
            Unit::Memory => memory(value),
        };
        let title_of = |name: &str| {
            record
                .engines
                .iter()
                .find(|engine| engine.name == name)
                .map_or(name.to_owned(), |engine| engine.title.clone())
        };
        let word = match verdict {
            Verdict::Holds => "as said",
            Verdict::Better => "better",
            Verdict::Worse => "worse",
        };
        let _ = writeln!(out, "    {:TITLE$} {value:>8}  {word}", title(&title_of(engine)));
    }
}

fn missing(out: &mut String, record: &Record) {
    let mut absent = record.absent().peekable();
    if absent.peek().is_some() {
        let _ = writeln!(out, "\nNot measured here:");
        for (engine, gap) in absent {
            let _ = writeln!(out, "  {:TITLE$} {gap}", title(&engine.title));
        }
    }
    for gap in &record.mechanism_gaps {
        let _ = writeln!(out, "  mechanisms: {}: {}", gap.title, gap.why);
    }
    if record.interrupted {
        let _ = writeln!(out, "\nInterrupted: this is what there was until then.");
    }
    if !record.errors.is_empty() {
        let _ = writeln!(out, "\nERRORS:");
        for error in &record.errors {
            let _ = writeln!(out, "  {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_eighths() {
        assert_eq!(bar(1.0, 4), "████");
        assert_eq!(bar(0.5, 4), "██");
        assert_eq!(bar(0.53125, 4), "██▏");
        assert_eq!(bar(0.0, 4), "▏");
        assert_eq!(bar(f64::NAN, 4), "▏");
        assert_eq!(bar(7.0, 4), "████");
    }
}
