//! Progress of long work on the terminal: one bar, its phase in front.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What a phase counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things.
    Items,
}

/// A bar on standard error; silent if that is no terminal, but for a line a phase.
pub struct Bar {
    bar: ProgressBar,
    is_terminal: bool,
    phase: String,
}

impl Bar {
    /// A bar that shows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        use std::io::IsTerminal;
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        Self { bar, is_terminal: std::io::stderr().is_terminal(), phase: String::new() }
    }

    /// Begins a phase of `total` units; zero if nobody knows.
    pub fn phase(&mut self, name: &str, unit: Unit, total: u64) {
        if name != self.phase && !self.is_terminal {
            eprintln!("{name}");
        }
        name.clone_into(&mut self.phase);
        let template = match (total, unit) {
            (0, _) => "{spinner:.cyan} {elapsed:.dim} {wide_msg}",
            (_, Unit::Bytes) => "{bar:28.cyan/dim} {bytes}/{total_bytes} {bytes_per_sec:.dim} {eta:.dim} {wide_msg}",
            (_, Unit::Items) => "{bar:28.cyan/dim} {pos}/{len} {elapsed:.dim} {wide_msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        if total == 0 {
            self.bar.unset_length();
        } else {
            self.bar.set_length(total);
        }
        self.bar.set_position(0);
        self.bar.reset_elapsed();
        self.bar.set_message(name.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(100));
    }

    /// How far the phase is, and what it is busy with.
    pub fn position(&mut self, position: u64, detail: &str) {
        self.bar.set_position(position);
        self.bar.set_message(format!("{} {detail}", self.phase));
    }

    /// Prints a line above the bar.
    pub fn note(&mut self, text: &str) {
        self.bar.suspend(|| eprintln!("isomorph: {text}"));
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finish();
    }
}
