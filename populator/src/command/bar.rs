//! What a person sees while an archive is read, where standard error is a terminal.

use std::sync::Arc;
use std::time::Duration;

use archive::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::task::AbortOnDropHandle;

/// How often it is drawn anew.
const PERIOD: Duration = Duration::from_millis(100);

/// Bytes of the stored object that are done, their rate, and the time that is left. Gone when dropped.
pub(super) struct Bar {
    bar: ProgressBar,
    _drawing: AbortOnDropHandle<()>,
}

impl Bar {
    pub(super) fn start(progress: &Arc<Progress>, length: u64) -> Self {
        let bar = ProgressBar::new(length).with_style(style());
        let (shown, progress) = (bar.clone(), Arc::clone(progress));
        let drawing = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(PERIOD);
            loop {
                ticks.tick().await;
                let seen = progress.snapshot();
                shown.set_position(seen.consumed);
                // An image has none.
                if seen.entries > 0 {
                    shown.set_message(format!("{} entries", seen.entries));
                }
            }
        });
        Self {
            bar,
            _drawing: AbortOnDropHandle::new(drawing),
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style() -> ProgressStyle {
    let template = "{percent:>3}% [{wide_bar}] {bytes}/{total_bytes}, {bytes_per_sec}, \
                    {eta} left, {msg}";
    ProgressStyle::with_template(template)
        .expect("a constant that the tests try")
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_template_is_one() {
        super::style();
    }
}
