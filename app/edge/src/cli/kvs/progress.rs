//! How far a long piece of work is: on standard error, and only where somebody looks.

use std::fmt::Display;
use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Of so many things, or of nobody knows how many.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn of(total: u64, things: &str) -> Self {
        Self::new(Some(total), &format!("[{{bar:30}}] {{pos}}/{{len}} {things}  {{msg}}  {{eta}} left"))
    }

    pub(super) fn endless(things: &str) -> Self {
        Self::new(None, &format!("{{spinner}} {{pos}} {things}  {{msg}}  {{elapsed}}"))
    }

    fn new(total: Option<u64>, template: &str) -> Self {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(4)
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(total, target);
        bar.set_style(style.progress_chars("=> "));
        Self(bar)
    }

    pub(super) fn advance(&self, message: impl Display) {
        self.0.inc(1);
        self.say(message);
    }

    pub(super) fn set(&self, position: u64, message: impl Display) {
        self.0.set_position(position);
        self.say(message);
    }

    pub(super) fn say(&self, message: impl Display) {
        if !self.0.is_hidden() {
            self.0.set_message(message.to_string());
        }
    }

    /// Does something that may print, with the bar out of its way.
    pub(super) fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.suspend(work)
    }

    /// A word beside the result, which stands on standard output.
    #[expect(clippy::print_stderr, reason = "standard output has the result, and nothing else")]
    pub(super) fn note(&self, text: impl Display) {
        self.0.suspend(|| eprintln!("note: {text}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A number of bytes as people say it.
pub(super) fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}
