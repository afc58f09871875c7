//! The report as a page: one file that needs nothing else, with pictures that one would put into a lecture.

use std::fmt::Write;

use super::figures::{self, QUANTITIES};
use super::svg::{escape, row};
use crate::claims::{self, Unit, Verdict, is_computing};
use crate::engine::NATIVE;
use crate::format::{memory, speed, spread, time};
use crate::record::Record;
use crate::workload::STARTUP;

const STYLE: &str = "
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', sans-serif; color: #212529; background: #fff;
  max-width: 1080px; margin: 40px auto 80px; padding: 0 24px; }
h1 { font-size: 34px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.5px; }
h2 { font-size: 22px; margin: 56px 0 4px; padding-top: 18px; border-top: 1px solid #dee2e6; }
p { max-width: 78ch; margin: 6px 0 14px; }
.host, .note { color: #5c6670; font-size: 14px; max-width: none; }
.warn { background: #fff4e0; border-left: 4px solid #f59f00; padding: 8px 14px; font-size: 14px; max-width: none; }
.error { background: #ffe8e8; border-left: 4px solid #d6336c; padding: 8px 14px; font-size: 14px; max-width: none; }
.cards { display: flex; flex-wrap: wrap; gap: 14px; margin: 26px 0 8px; }
.card { flex: 1 1 180px; border: 1px solid #e3e6ea; border-top: 5px solid; border-radius: 6px; padding: 10px 14px; }
.card b { display: block; font-size: 28px; line-height: 1.15; letter-spacing: -0.5px; }
.card span { display: block; font-size: 13px; color: #5c6670; line-height: 1.35; }
.card strong { font-size: 13.5px; }
.legend { max-width: none; font-size: 13px; display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 10px 0 14px; }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 6px; margin-right: 6px; vertical-align: -1px; }
svg { width: 100%; height: auto; display: block; margin: 10px 0 26px; overflow: visible; }
svg text { paint-order: stroke; stroke: #fff; stroke-width: 3px; stroke-linejoin: round; font-family: system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', sans-serif; fill: #212529; }
svg .title { font-size: 15px; font-weight: 650; }
svg .label { font-size: 13px; }
svg .name { font-size: 11.5px; fill: #495057; }
svg .small { font-size: 11.5px; fill: #6c757d; }
svg .tick { font-size: 11px; fill: #868e96; }
svg .value { font-size: 11px; fill: #343a40; font-variant-numeric: tabular-nums; }
svg .strong { font-size: 12.5px; font-weight: 650; font-variant-numeric: tabular-nums; }
svg .gap { font-size: 11px; fill: #adb5bd; font-style: italic; }
svg .said { font-size: 11px; fill: #94803a; }
table { border-collapse: collapse; font-size: 12.5px; width: 100%; font-variant-numeric: tabular-nums; margin: 10px 0 24px; }
th { text-align: right; font-weight: 600; color: #495057; border-bottom: 2px solid #dee2e6; padding: 4px 6px; vertical-align: bottom; }
td { text-align: right; border-bottom: 1px solid #f0f2f4; padding: 4px 6px; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
td small { display: block; color: #868e96; }
table.figures { font-size: 11.5px; }
table.figures td { white-space: nowrap; }
table.words td, table.words th { text-align: left; font-size: 13.5px; }
.holds { color: #08703f; } .better { color: #1864ab; } .worse { color: #c92a2a; }
@media print { h2 { break-before: page; } }
";

/// The whole page.
#[must_use]
pub fn report(record: &Record) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Virtual machines, measured</title><style>{STYLE}</style></head>\n<body>\n"
    );
    head(&mut out, record);
    cards(&mut out, record);
    speeds(&mut out, record);
    quantities(&mut out, record);
    if let Some(picture) = figures::warm_up(record) {
        section(
            &mut out,
            "How they warm up",
            "The same work again and again in one process: interpreters begin, compilers and translators take over. Both axes are logarithmic; lower is faster.",
        );
        out.push_str(&picture);
    }
    if let Some(picture) = figures::mechanisms(&record.mechanisms) {
        section(
            &mut out,
            "What it is made of",
            "Single mechanisms, measured alone. Isomorph's bars are green, its peers' grey; those of machines are measured from inside, without an operating system in between.",
        );
        out.push_str(&picture);
    }
    tested(&mut out, record);
    table(&mut out, record);
    missing(&mut out, record);
    method(&mut out, record);
    out.push_str("</body></html>\n");
    out
}

fn section(out: &mut String, title: &str, text: &str) {
    let _ = write!(out, "<h2>{}</h2>\n<p>{}</p>\n", escape(title), escape(text));
}

fn head(out: &mut String, record: &Record) {
    let day = date(record.created_s);
    let kind = if record.quick { "a short comparison" } else { "a comparison" };
    let _ = write!(
        out,
        "<h1>Virtual machines, measured</h1>\n<p class=\"host\">{}<br>Isomorph {}, {kind} of {:.0} s on {day}; {}</p>\n",
        escape(&record.host.line()),
        escape(&record.isomorph),
        record.took_s,
        if record.rounds == 1 { "one round".into() } else { format!("{} rounds", record.rounds) }
    );
    if record.host.is_busy() {
        let _ = writeln!(
            out,
            "<p class=\"warn\">The host was busy (load {:.1}): others worked on it during the comparison, and the figures have suffered.</p>",
            record.host.load
        );
    }
    if record.interrupted {
        out.push_str("<p class=\"warn\">The comparison was interrupted: this is what there was until then.</p>\n");
    }
    for error in &record.errors {
        let _ = writeln!(out, "<p class=\"error\">{}</p>", escape(error));
    }
}

/// The day of a time, in UTC: the calendar's arithmetic counts from a March.
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

/// The most important of each engine.
fn cards(out: &mut String, record: &Record) {
    out.push_str("<div class=\"cards\">\n");
    for engine in record.present().filter(|engine| engine.name != NATIVE) {
        let Some(computing) = record.mean_speed(&engine.name, is_computing) else { continue };
        let start = record.figure(STARTUP, &engine.name);
        let start_text =
            start.and_then(|figure| figure.start_ns).map(|start| format!("starts in {}", time(start.median)));
        let memory_text = start.and_then(|figure| figure.resident_bytes).map(|bytes| memory(bytes.median));
        let beside: Vec<String> = [start_text, memory_text].into_iter().flatten().collect();
        let _ = writeln!(
            out,
            "<div class=\"card\" style=\"border-top-color:{}\"><strong>{}</strong><b>{}</b><span>of native speed</span><span>{}</span></div>",
            figures::colour(&engine.name),
            escape(&engine.title),
            speed(computing),
            escape(&beside.join(", "))
        );
    }
    out.push_str("</div>\n");
}

fn speeds(out: &mut String, record: &Record) {
    if record.workloads.iter().all(|workload| workload.name == STARTUP) {
        return;
    }
    section(
        out,
        "How fast they are",
        "The same work on every machine, warm, of the speed of native code. A dot is a median, the line through it leaves out the fastest and the slowest tenth.",
    );
    out.push_str(&figures::legend(record));
    out.push_str(&figures::overview(record));
    section(
        out,
        "Workload by workload",
        "Bars are speeds of native speed, which is the dashed line: longer is faster. Behind them: the time of an iteration, of one call, or the rate.",
    );
    out.push_str(&figures::panels(record));
}

fn quantities(out: &mut String, record: &Record) {
    section(
        out,
        "What is said, and what was measured",
        "Dots are measured here. The bands are the ranges that textbooks, course notes and vendors give for that kind of machine. Axes are logarithmic.",
    );
    for quantity in QUANTITIES {
        out.extend(figures::quantity(record, quantity));
    }
}

fn tested(out: &mut String, record: &Record) {
    let tested = claims::tested(record);
    if tested.is_empty() {
        return;
    }
    section(out, "The claims in words", "As said: within the range, give or take a tenth.");
    out.push_str("<table class=\"words\">");
    out.push_str(&row("th", ["about", "what is said", "measured on", "measured", ""]));
    let mut last = "";
    for claims::Tested { claim, engine, value, verdict } in tested {
        let value = match claim.unit {
            Unit::Speed => speed(value),
            Unit::Time => time(value),
            Unit::Memory => memory(value),
        };
        let word = match verdict {
            Verdict::Holds => "<span class=\"holds\">as said</span>",
            Verdict::Better => "<span class=\"better\">better</span>",
            Verdict::Worse => "<span class=\"worse\">worse</span>",
        };
        let title = record.engines.iter().find(|found| found.name == engine).map_or(engine, |found| &found.title);
        let is_new = last != claim.about;
        last = claim.about;
        let [about, stated] =
            if is_new { [claim.about, claim.stated].map(escape) } else { [String::new(), String::new()] };
        out.push_str(&row("td", [about, stated, escape(title), value, word.to_owned()]));
    }
    out.push_str("</table>\n");
}

fn table(out: &mut String, record: &Record) {
    section(
        out,
        "All figures",
        "Median and spread of warm iterations (of the start for start-up), and below: speed of native speed, and the first iteration.",
    );
    let engines: Vec<_> = record.present().collect();
    out.push_str("<table class=\"figures\">");
    out.push_str(&row("th", std::iter::once(String::new()).chain(engines.iter().map(|engine| escape(&engine.short)))));
    for workload in &record.workloads {
        let cells = engines.iter().map(|engine| {
            let Some(figure) = record.entry(&workload.name, &engine.name) else { return String::new() };
            let Some(measured) = figure.time_ns() else {
                return format!("<small>{}</small>", escape(figure.gap.as_deref().unwrap_or("-")));
            };
            let mut cell = format!("{} {}", workload.value(measured.median), spread(measured.relative()));
            if let (Some(part), Some(first)) = (record.speed(&workload.name, &engine.name), figure.first_ns)
                && workload.name != STARTUP
            {
                let _ = write!(cell, "<small>{}</small><small>first {}</small>", speed(part), time(first.median));
            }
            cell
        });
        out.push_str(&row("td", std::iter::once(escape(&workload.title)).chain(cells)));
    }
    out.push_str("</table>\n");
}

fn missing(out: &mut String, record: &Record) {
    let absent = record.absent().map(|(engine, gap)| (engine.title.as_str(), gap));
    let gaps: Vec<_> =
        absent.chain(record.mechanism_gaps.iter().map(|gap| (gap.title.as_str(), gap.why.as_str()))).collect();
    if gaps.is_empty() {
        return;
    }
    section(out, "What is missing", "Not on this host, or not today.");
    out.push_str("<table class=\"words\">");
    for (title, gap) in gaps {
        out.push_str(&row("td", [escape(title), escape(gap)]));
    }
    out.push_str("</table>\n");
}

fn method(out: &mut String, record: &Record) {
    section(
        out,
        "How it was measured",
        "Every workload exists once in C, for native code, WebAssembly and riscv64, and once in Java, does the same work and prints the same checksum everywhere; a checksum that differs \
         is an error. Engines take turns, round by round. A program times each iteration itself; warm is the median of the later half of a run, and the figure the median over the rounds. \
         Memory is what was resident on the host at most. Machines run the same program as their first process, from an initial RAM disk, and files are in memory there.",
    );
    out.push_str("<table class=\"words\">");
    for engine in record.present() {
        out.push_str(&row(
            "td",
            [escape(&engine.title), escape(engine.version.as_deref().unwrap_or("C, compiled for this processor"))],
        ));
    }
    out.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_right() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_795_238_213), "2026-11-21");
    }
}
