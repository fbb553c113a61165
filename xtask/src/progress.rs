//! Says what is being done and how far it is: a live line on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a plain line is written while a step runs.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// A number of steps, shown one at a time.
pub(crate) struct Progress {
    total: usize,
    number: usize,
    start: Instant,
    step_start: Instant,
    last_plain: Instant,
    title: String,
    text: String,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new(total: usize) -> Self {
        let now = Instant::now();
        Self {
            total,
            number: 0,
            start: now,
            step_start: now,
            last_plain: now,
            title: String::new(),
            text: String::new(),
            bar: None,
        }
    }

    /// Begins the next step.
    pub(crate) fn begin(&mut self, title: impl Into<String>) {
        self.number += 1;
        self.title = title.into();
        self.text.clear();
        self.step_start = Instant::now();
        self.last_plain = self.step_start;
        if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{spinner} {prefix}: {wide_msg} {elapsed}")
                .expect("a constant template");
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
                .with_style(style)
                .with_prefix(self.head());
            bar.enable_steady_tick(Duration::from_millis(120));
            self.bar = Some(bar);
        } else {
            eprintln!("{} ...", self.head());
        }
    }

    /// How far the step is; an empty text only says that it still runs.
    pub(crate) fn update(&mut self, text: &str) {
        if !text.is_empty() {
            text.clone_into(&mut self.text);
            if let Some(bar) = &self.bar {
                bar.set_message(text.to_owned());
            }
        }
        if self.bar.is_none() && self.last_plain.elapsed() >= PLAIN_INTERVAL {
            self.last_plain = Instant::now();
            let elapsed = self.step_start.elapsed().as_secs();
            eprintln!("{}: {} ({elapsed} s)", self.head(), self.text);
        }
    }

    /// Writes a line that stays.
    pub(crate) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// Ends the step.
    pub(crate) fn done(&mut self, result: &str) {
        self.clear();
        eprintln!(
            "{}: {result} ({:.1} s)",
            self.head(),
            self.step_start.elapsed().as_secs_f32()
        );
    }

    /// Removes the live line, for a step that failed.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Since the first step.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn head(&self) -> String {
        format!("[{}/{}] {}", self.number, self.total, self.title)
    }
}
