//! Progress of long jobs: a spinner on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// One job's progress on standard error.
pub struct Progress {
    bar: ProgressBar,
    last_line: Option<Instant>,
}

impl Progress {
    pub fn start(what: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        let last_line = if bar.is_hidden() {
            eprintln!("{what}");
            Some(Instant::now())
        } else {
            bar.enable_steady_tick(Duration::from_millis(100));
            bar.set_message(what.to_owned());
            None
        };
        Self { bar, last_line }
    }

    pub fn say(&mut self, what: String) {
        match &mut self.last_line {
            None => self.bar.set_message(what),
            Some(last) if last.elapsed() >= LINE_INTERVAL => {
                *last = Instant::now();
                eprintln!("{what}");
            }
            Some(_) => {}
        }
    }

    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
