//! The pictures of the page, each from a record.

use super::svg::{Anchor, Axis, Picture, apart, wrap};
use crate::claims::{self, CLAIMS, is_computing};
use crate::engine::NATIVE;
use crate::format::{memory, round, speed, time};
use crate::mechanism::{Mechanism, Unit};
use crate::record::{EngineRecord, Record};
use crate::statistics::Spread;
use crate::workload::STARTUP;

/// The width of all pictures.
const WIDTH: f64 = 1080.0;
const GRID: &str = r##"stroke="#e3e6ea" stroke-width="1""##;
const HAIR: &str = r##"stroke="#f0f2f4" stroke-width="1""##;
const NATIVE_LINE: &str = r##"stroke="#8a929b" stroke-width="1.2" stroke-dasharray="4 3""##;
/// What is said, behind what was measured.
const SAID: &str = r##"fill="#f3e9c8""##;

/// An engine's colour: a hue for each kind, strong for Isomorph's and light for its peers.
pub(super) fn colour(engine: &str) -> &'static str {
    match engine {
        NATIVE => "#343a40",
        "isomorph-java" => "#d9480f",
        "java" => "#f7a35c",
        "isomorph-wasm" => "#6741d9",
        "node-wasm" => "#b9a3f2",
        "isomorph-linux" => "#1864ab",
        "qemu-linux" => "#7db8e8",
        "isomorph-riscv64" => "#08703f",
        "qemu-riscv64" => "#6cc49a",
        "qemu-kvm" => "#ef9ab8",
        _ => "#c2255c",
    }
}

fn fill(engine: &str) -> String {
    format!(r#"fill="{}""#, colour(engine))
}

/// The engines' colours and names.
pub(super) fn legend(record: &Record) -> String {
    let item = |engine: &EngineRecord| {
        let title = super::svg::escape(&engine.title);
        format!(r#"<span><i style="background:{}"></i>{title}</span>"#, colour(&engine.name))
    };
    format!(r#"<p class="legend">{}</p>"#, record.present().map(item).collect::<String>())
}

/// Speeds of all engines at all workloads: a row a workload, a lane in it an engine.
pub(super) fn overview(record: &Record) -> String {
    const LEFT: f64 = 150.0;
    const TOP: f64 = 24.0;
    let engines: Vec<_> = record.present().filter(|engine| engine.name != NATIVE).collect();
    let lane = 4.0;
    let row = (engines.len() as f64 * lane + 12.0).max(26.0);
    let workloads: Vec<_> = record.workloads.iter().filter(|workload| workload.name != STARTUP).collect();
    let speeds = || {
        let pairs = workloads.iter().flat_map(|workload| engines.iter().map(move |engine| (workload, engine)));
        pairs.filter_map(|(workload, engine)| record.speed(&workload.name, &engine.name))
    };
    let axis = Axis::about(speeds().chain([1.0]), (LEFT, WIDTH - 30.0));
    let bottom = TOP + row * workloads.len() as f64;
    let mut picture = Picture::new(WIDTH, bottom + 40.0);
    for tick in axis.ticks() {
        let x = axis.place(tick);
        picture.line((x, TOP), (x, bottom), if (tick - 1.0).abs() < 1e-9 { NATIVE_LINE } else { GRID });
        picture.text((x, bottom + 16.0), Anchor::Middle, "tick", &round(&speed(tick)));
    }
    picture.text((axis.place(1.0), TOP - 8.0), Anchor::Middle, "small", "native code");
    picture.text(
        (WIDTH - 30.0, bottom + 34.0),
        Anchor::End,
        "small",
        "speed, of native speed (logarithmic; right is faster)",
    );
    for (index, workload) in workloads.iter().enumerate() {
        let top = TOP + row * index as f64;
        picture.line((0.0, top), (WIDTH - 30.0, top), HAIR);
        picture.text((LEFT - 14.0, top + row / 2.0 + 4.0), Anchor::End, "label", &workload.title);
        for (number, engine) in engines.iter().enumerate() {
            let Some(speed_of) = record.speed(&workload.name, &engine.name) else { continue };
            let y = top + row / 2.0 + (number as f64 - (engines.len() as f64 - 1.0) / 2.0) * lane;
            let x = axis.place(speed_of);
            let spread = record.figure(&workload.name, &engine.name).and_then(|figure| figure.time_ns());
            if let Some(Spread { median, low, high }) = spread {
                let ends = [high, low].map(|end| axis.place(speed_of * median / end));
                let style = format!(r#"stroke="{}" stroke-width="1.4" opacity="0.4""#, colour(&engine.name));
                picture.line((ends[0], y), (ends[1], y), &style);
            }
            let tip = format!("{}: {}, {}", workload.title, engine.title, speed(speed_of));
            let style = format!(r##"{} stroke="#fff" stroke-width="0.8""##, fill(&engine.name));
            picture.dot((x, y), 5.0, &style, &tip);
        }
    }
    picture.line((0.0, bottom), (WIDTH - 30.0, bottom), HAIR);
    picture.finish("Speed of every machine at every workload, of native speed")
}

/// A panel of bars for each workload.
pub(super) fn panels(record: &Record) -> String {
    const COLUMNS: usize = 3;
    const GAP: f64 = 34.0;
    const BAR: f64 = 17.0;
    const NAMES: f64 = 124.0;
    const VALUES: f64 = 104.0;
    let width = (WIDTH - GAP * (COLUMNS as f64 - 1.0)) / COLUMNS as f64;
    let bars = width - NAMES - VALUES;
    let engines: Vec<_> = record.present().collect();
    let height = 44.0 + BAR * engines.len() as f64 + 22.0;
    let workloads: Vec<_> = record.workloads.iter().filter(|workload| workload.name != STARTUP).collect();
    let mut picture = Picture::new(WIDTH, height * workloads.len().div_ceil(COLUMNS) as f64);
    for (index, workload) in workloads.iter().enumerate() {
        let (x, y) = ((index % COLUMNS) as f64 * (width + GAP), (index / COLUMNS) as f64 * height);
        picture.text((x, y + 14.0), Anchor::Start, "title", &workload.title);
        picture.text((x, y + 30.0), Anchor::Start, "small", &workload.what);
        let speeds = engines.iter().filter_map(|engine| record.speed(&workload.name, &engine.name));
        let top = speeds.fold(1.0, f64::max);
        let (left, first) = (x + NAMES, y + 40.0);
        let native = left + bars / top;
        picture.line((native, first), (native, first + BAR * engines.len() as f64), NATIVE_LINE);
        for (number, engine) in engines.iter().enumerate() {
            let y = first + BAR * number as f64;
            picture.text((left - 8.0, y + 12.0), Anchor::End, "name", &engine.short);
            let Some(figure) = record.entry(&workload.name, &engine.name) else { continue };
            let Some(steady) = figure.steady_ns else {
                let why = figure.gap.as_deref().unwrap_or("not measured");
                picture.text((left + 2.0, y + 12.0), Anchor::Start, "gap", &wrap(why, 34)[..].join(" "));
                continue;
            };
            let part = record.speed(&workload.name, &engine.name).unwrap_or(0.0);
            picture.rectangle((left, y + 2.0), (part / top * bars, BAR - 5.0), &fill(&engine.name));
            let value = format!("{} · {}", speed(part), workload.value(steady.median));
            picture.text((left + part / top * bars + 5.0, y + 12.0), Anchor::Start, "value", &value);
        }
    }
    picture.finish("Speed of every machine, a panel for each workload")
}

/// One of the quantities that claims are about, for all engines: dots, with what is said behind them.
pub(super) struct Quantity {
    /// Its name.
    pub(super) title: &'static str,
    unit: claims::Unit,
    note: &'static str,
    value: fn(&Record, &str) -> Option<Spread>,
    claims: &'static [&'static str],
}

/// The quantities.
pub(super) const QUANTITIES: &[Quantity] = &[
    Quantity {
        title: "Start-up",
        unit: claims::Unit::Time,
        note: "to a program's first word; of a machine, to the first process of its Linux",
        value: |record, engine| record.figure(STARTUP, engine)?.start_ns,
        claims: &["Java's start-up", "a C program's start-up", "a machine's start-up"],
    },
    Quantity {
        title: "Memory, doing nothing",
        unit: claims::Unit::Memory,
        note: "resident on the host, at most; of a machine with 512 MiB, its guest's kernel with it",
        value: |record, engine| record.figure(STARTUP, engine)?.resident_bytes,
        claims: &["Java's memory, doing nothing", "a C program's memory, doing nothing", "a machine's memory"],
    },
    Quantity {
        title: "Speed, warm",
        unit: claims::Unit::Speed,
        note: "of native speed; mean of what computes, and from the least to the most",
        value: |record, engine| over_workloads(record, |name| record.speed(name, engine)),
        claims: &[
            "Java, compiled and warm",
            "WebAssembly, warm",
            "binary translation of a whole machine",
            "a machine with hardware help",
        ],
    },
    Quantity {
        title: "Speed, cold",
        unit: claims::Unit::Speed,
        note: "of native speed: the first iteration, before anything is compiled",
        value: |record, engine| over_workloads(record, |name| record.cold_speed(name, engine)),
        claims: &["Java, cold (the first iteration)"],
    },
];

fn over_workloads(record: &Record, value: impl Fn(&str) -> Option<f64>) -> Option<Spread> {
    let names = record.workloads.iter().map(|workload| workload.name.as_str()).filter(|name| is_computing(name));
    let values: Vec<f64> = names.filter_map(value).collect();
    let (low, high) = values.iter().fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(*value), high.max(*value)));
    Some(Spread { median: crate::statistics::geometric_mean(values)?, low, high })
}

fn show(unit: claims::Unit, value: f64) -> String {
    match unit {
        claims::Unit::Speed => speed(value),
        claims::Unit::Time => time(value),
        claims::Unit::Memory => memory(value),
    }
}

/// A quantity of all engines on one axis. Nothing, if nothing of it was measured.
pub(super) fn quantity(record: &Record, quantity: &Quantity) -> Option<String> {
    /// Where names and values end, and the axis begins and ends; behind it stands what is said.
    const NAMES: f64 = 206.0;
    const VALUES: f64 = 284.0;
    const LEFT: f64 = 304.0;
    const RIGHT: f64 = 812.0;
    const TOP: f64 = 30.0;
    const ROW: f64 = 28.0;
    let rows: Vec<(&EngineRecord, Spread)> = record
        .present()
        .filter(|engine| quantity.unit != claims::Unit::Speed || engine.name != NATIVE)
        .filter_map(|engine| Some((engine, (quantity.value)(record, &engine.name)?)))
        .collect();
    if rows.is_empty() {
        return None;
    }
    let claim_of = |engine: &str| {
        let mut claims = CLAIMS.iter().filter(|claim| quantity.claims.contains(&claim.about));
        claims.find(|claim| claim.engines.contains(&engine))
    };
    let claimed = rows.iter().filter_map(|(engine, _)| claim_of(&engine.name)).flat_map(|claim| [claim.from, claim.to]);
    let measured = rows.iter().flat_map(|(_, spread)| [spread.low, spread.high]);
    let axis = Axis::about(claimed.chain(measured), (LEFT, RIGHT));
    let bottom = TOP + ROW * rows.len() as f64;
    let mut picture = Picture::new(WIDTH, bottom + 24.0);
    picture.text((0.0, 14.0), Anchor::Start, "title", quantity.title);
    picture.text((LEFT, 14.0), Anchor::Start, "small", quantity.note);
    picture.text((RIGHT + 18.0, 14.0), Anchor::Start, "said", "what is said");
    for tick in axis.ticks() {
        picture.line((axis.place(tick), TOP), (axis.place(tick), bottom), GRID);
        picture.text((axis.place(tick), bottom + 16.0), Anchor::Middle, "tick", &round(&show(quantity.unit, tick)));
    }
    for (index, (engine, spread)) in rows.iter().enumerate() {
        let y = TOP + ROW * (index as f64 + 0.5);
        picture.line((0.0, y + ROW / 2.0), (WIDTH, y + ROW / 2.0), HAIR);
        picture.text((NAMES, y + 4.0), Anchor::End, "label", &engine.title);
        if let Some(claim) = claim_of(&engine.name) {
            let (from, to) = (axis.place(claim.from), axis.place(claim.to));
            picture.rectangle((from - 1.5, y - ROW / 2.0 + 3.0), (to - from + 3.0, ROW - 6.0), SAID);
            picture.text((RIGHT + 18.0, y + 4.0), Anchor::Start, "said", claim.stated);
        }
        let x = axis.place(spread.median);
        let style = format!(r#"stroke="{}" stroke-width="2" opacity="0.35""#, colour(&engine.name));
        picture.line((axis.place(spread.low), y), (axis.place(spread.high), y), &style);
        let value = show(quantity.unit, spread.median);
        picture.dot((x, y), 6.0, &fill(&engine.name), &format!("{}: {value}", engine.title));
        picture.text((VALUES, y + 4.0), Anchor::End, "strong", &value);
    }
    Some(picture.finish(quantity.title))
}

/// How machines warm up: the time of an iteration by its number.
pub(super) fn warm_up(record: &Record) -> Option<String> {
    const SHOWN: [&str; 4] = ["sort", "json", "regex", "nbody"];
    const COLUMNS: usize = 2;
    const LABELS: f64 = 122.0;
    const LEFT: f64 = 44.0;
    const HEIGHT: f64 = 300.0;
    let workloads: Vec<_> =
        record.workloads.iter().filter(|workload| SHOWN.contains(&workload.name.as_str())).collect();
    if workloads.is_empty() {
        return None;
    }
    let width = (WIDTH - 30.0) / COLUMNS as f64;
    let mut picture = Picture::new(WIDTH, HEIGHT * workloads.len().div_ceil(COLUMNS) as f64);
    for (index, workload) in workloads.iter().enumerate() {
        let (x, y) = ((index % COLUMNS) as f64 * (width + 30.0), (index / COLUMNS) as f64 * HEIGHT);
        let curves: Vec<_> = record
            .present()
            .filter_map(|engine| Some((engine, &record.figure(&workload.name, &engine.name)?.warm_up_ns)))
            .filter(|(_, points)| points.len() > 1)
            .collect();
        let (top, bottom) = (y + 34.0, y + HEIGHT - 44.0);
        let across = Axis::about(
            curves.iter().flat_map(|(_, points)| points.iter().map(|(number, _)| f64::from(*number))),
            (x + LEFT, x + width - LABELS),
        );
        let up = Axis::about(curves.iter().flat_map(|(_, points)| points.iter().map(|(_, ns)| *ns)), (bottom, top));
        picture.text((x, y + 14.0), Anchor::Start, "title", &workload.title);
        for tick in up.ticks() {
            picture.line((x + LEFT, up.place(tick)), (x + width - LABELS, up.place(tick)), GRID);
            picture.text((x + LEFT - 6.0, up.place(tick) + 4.0), Anchor::End, "tick", &round(&time(tick)));
        }
        for tick in across.ticks() {
            picture.text((across.place(tick), bottom + 16.0), Anchor::Middle, "tick", &format!("{tick:.0}"));
        }
        picture.text((x + width - LABELS, bottom + 32.0), Anchor::End, "small", "iteration");
        let mut ends: Vec<f64> =
            curves.iter().map(|(_, points)| up.place(points.last().map_or(1.0, |(_, ns)| *ns))).collect();
        apart(&mut ends, 13.0, bottom + 4.0);
        for ((engine, points), end) in curves.iter().zip(ends) {
            let points: Vec<_> =
                points.iter().map(|(number, ns)| (across.place(f64::from(*number)), up.place(*ns))).collect();
            let style = format!(r#"stroke="{}" stroke-width="2" stroke-linejoin="round""#, colour(&engine.name));
            picture.curve(&points, &style);
            if let Some(last) = points.last() {
                let to = x + width - LABELS + 8.0;
                let style = format!(r#"stroke="{}" stroke-width="0.7" opacity="0.6""#, colour(&engine.name));
                picture.line(*last, (to - 2.0, end), &style);
                picture.text((to, end + 4.0), Anchor::Start, "name", &engine.short);
            }
        }
    }
    Some(picture.finish("How long iterations take, the first to the last"))
}

/// What machines are made of: a panel for each mechanism.
pub(super) fn mechanisms(mechanisms: &[Mechanism]) -> Option<String> {
    const COLUMNS: usize = 2;
    const GAP: f64 = 40.0;
    const ROW: f64 = 22.0;
    const NAMES: f64 = 190.0;
    const VALUES: f64 = 130.0;
    const WORDS: usize = 80;
    if mechanisms.is_empty() {
        return None;
    }
    let width = (WIDTH - GAP) / COLUMNS as f64;
    let bars = width - NAMES - VALUES;
    let height = |mechanism: &Mechanism| {
        32.0 + wrap(&mechanism.what, WORDS).len() as f64 * 15.0 + ROW * mechanism.values.len() as f64 + 18.0
    };
    let rows: Vec<f64> = mechanisms.chunks(COLUMNS).map(|row| row.iter().map(height).fold(0.0, f64::max)).collect();
    let mut picture = Picture::new(WIDTH, rows.iter().sum());
    let mut y = 0.0;
    for (row, chunk) in rows.iter().zip(mechanisms.chunks(COLUMNS)) {
        for (column, mechanism) in chunk.iter().enumerate() {
            let x = column as f64 * (width + GAP);
            picture.text((x, y + 14.0), Anchor::Start, "title", &mechanism.title);
            let mut below = y + 30.0;
            for line in wrap(&mechanism.what, WORDS) {
                picture.text((x, below), Anchor::Start, "small", &line);
                below += 15.0;
            }
            let pauses = mechanism.title.starts_with("collectors");
            let highest =
                mechanism.values.iter().map(|value| if pauses { value.value.high } else { value.value.median });
            let top = highest.fold(0.0, f64::max);
            let axis = Axis::about(
                mechanism.values.iter().flat_map(|value| [value.value.median, value.value.high]),
                (x + NAMES, x + NAMES + bars),
            );
            for value in &mechanism.values {
                let (middle, left) = (below + ROW / 2.0 - 4.0, x + NAMES);
                picture.text((left - 8.0, middle + 4.0), Anchor::End, "name", &value.title);
                let style = if value.is_ours { r##"fill="#08703f""## } else { r##"fill="#9aa5b1""## };
                let shown = mechanism.unit.show(value.value.median);
                let (end, words) = if pauses {
                    let (from, to) = (axis.place(value.value.median), axis.place(value.value.high));
                    picture.line((from, middle), (to, middle), r##"stroke="#f7a35c" stroke-width="3""##);
                    picture.dot((from, middle), 5.0, r##"fill="#f7a35c""##, &shown);
                    picture.rectangle((to - 1.5, middle - 6.0), (3.0, 12.0), r##"fill="#f7a35c""##);
                    (to, format!("{shown}, at most {}", mechanism.unit.show(value.value.high)))
                } else {
                    let end = value.value.median / top * bars;
                    picture.rectangle((left, middle - 6.0), (end, 12.0), style);
                    let range = if mechanism.unit == Unit::Times {
                        format!(
                            "{shown} ({} to {})",
                            mechanism.unit.show(value.value.low),
                            mechanism.unit.show(value.value.high)
                        )
                    } else {
                        shown
                    };
                    (left + end, range)
                };
                picture.text((end + 6.0, middle + 4.0), Anchor::Start, "value", &words);
                below += ROW;
            }
        }
        y += row;
    }
    Some(picture.finish("Mechanisms of virtual machines"))
}
