//! Drawing: a picture of shapes and words (SVG 1.1), and axes.

use std::fmt::{Display, Write};

/// A picture that grows by what is drawn.
pub(super) struct Picture {
    width: f64,
    height: f64,
    body: String,
}

/// Where a text stands with regard to its place.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Text as it may stand in a page.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Picture {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// Words in a class of the page's style.
    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        let _ =
            write!(self.body, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" class="{class}">{text}</text>"#);
    }

    pub(super) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), style: &str) {
        let _ = write!(self.body, r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" {style}/>"#);
    }

    pub(super) fn rectangle(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), style: &str) {
        let (width, height) = (width.max(0.5), height.max(0.5));
        let _ = write!(self.body, r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" {style}/>"#);
    }

    /// A dot that says what it is to who points at it.
    pub(super) fn dot(&mut self, (x, y): (f64, f64), radius: f64, style: &str, tip: &str) {
        let tip = escape(tip);
        let _ =
            write!(self.body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" {style}><title>{tip}</title></circle>"#);
    }

    pub(super) fn curve(&mut self, points: &[(f64, f64)], style: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(self.body, r#"<polyline points="{}" fill="none" {style}/>"#, points.join(" "));
    }

    /// The picture, with words for who cannot see it.
    pub(super) fn finish(self, description: &str) -> String {
        let Self { width, height, body } = self;
        let description = escape(description);
        format!(r#"<svg viewBox="0 0 {width:.0} {height:.0}" role="img" aria-label="{description}">{body}</svg>"#)
    }
}

/// A logarithmic axis: values onto pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    values: (f64, f64),
    pixels: (f64, f64),
}

impl Axis {
    /// An axis of whole steps (1, 2, 5, 10, ...) about the values.
    pub(super) fn about(values: impl IntoIterator<Item = f64>, pixels: (f64, f64)) -> Self {
        let finite = values.into_iter().filter(|value| value.is_finite() && *value > 0.0);
        let (least, most) =
            finite.fold((f64::MAX, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        if most <= 0.0 {
            return Self { values: (1.0, 10.0), pixels };
        }
        let below = steps(least / 11.0, most).into_iter().rfind(|step| *step <= least).unwrap_or(least);
        let above = steps(least, most * 11.0).into_iter().find(|step| *step >= most && *step > below).unwrap_or(most);
        Self { values: (below, above), pixels }
    }

    /// Where a value is; values outside are at the ends.
    pub(super) fn place(&self, value: f64) -> f64 {
        let (from, to) = self.values;
        let part = (value.clamp(from, to) / from).ln() / (to / from).ln();
        self.pixels.0 + part * (self.pixels.1 - self.pixels.0)
    }

    /// Values to mark: powers of ten where there are many, else 1, 2 and 5.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let all = steps(self.values.0 * 0.999, self.values.1 * 1.001);
        if all.len() <= 12 {
            return all;
        }
        all.into_iter().filter(|step| (step.log10() - step.log10().round()).abs() < 1e-9).collect()
    }
}

/// 1, 2, 5, 10, ... between two values.
fn steps(from: f64, to: f64) -> Vec<f64> {
    let mut steps = Vec::new();
    let mut power = 10_f64.powf(from.log10().floor());
    while power <= to {
        steps
            .extend([1.0, 2.0, 5.0].map(|factor| factor * power).into_iter().filter(|step| (from..=to).contains(step)));
        power *= 10.0;
    }
    steps
}

/// Moves places apart, in their order, until they have `distance` between them, as little as can be, and stay above `end`.
pub(super) fn apart(places: &mut [f64], distance: f64, end: f64) {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|a, b| places[*a].total_cmp(&places[*b]));
    for pair in 1..order.len() {
        let least = places[order[pair - 1]] + distance;
        places[order[pair]] = places[order[pair]].max(least);
    }
    let mut most = end;
    for place in order.into_iter().rev() {
        places[place] = places[place].min(most);
        most = places[place] - distance;
    }
}

/// Breaks a text into lines of so many characters.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.chars().count() + 1 + word.chars().count() <= width) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A row of a table.
pub(super) fn row(tag: &str, cells: impl IntoIterator<Item = impl Display>) -> String {
    let cells: String = cells.into_iter().map(|cell| format!("<{tag}>{cell}</{tag}>")).collect();
    format!("<tr>{cells}</tr>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_whole_steps() {
        let axis = Axis::about([0.011, 1.3], (0.0, 100.0));
        assert_eq!(axis.values, (0.01, 2.0));
        assert!(axis.place(0.01).abs() < 1e-9 && (axis.place(2.0) - 100.0).abs() < 1e-9);
        assert!(axis.place(1e-9).abs() < 1e-9);
        assert_eq!(axis.ticks().len(), 8);
        let long = Axis::about([1.0, 1e9], (0.0, 1.0)).ticks();
        assert!(long.len() == 10 && long.iter().all(|tick| tick.log10().fract().abs() < 1e-6), "{long:?}");
        assert!(Axis::about([], (0.0, 1.0)).ticks().len() > 1);
    }

    #[test]
    fn labels_are_moved_apart() {
        let mut places = [50.0, 10.0, 52.0];
        apart(&mut places, 12.0, 60.0);
        assert_eq!(places, [48.0, 10.0, 60.0]);
    }

    #[test]
    fn texts_are_broken_and_made_harmless() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(escape("a<b & \"c\""), "a&lt;b &amp; &quot;c&quot;");
    }
}
