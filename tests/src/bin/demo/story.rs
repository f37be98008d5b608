//! How the demo tells what it does.

use std::{sync::OnceLock, time::Instant};

/// A headline, with the time since the first.
pub fn chapter(title: &str) {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    let seconds = BEGIN.get_or_init(Instant::now).elapsed().as_secs();
    println!("\n== {title}   [{}:{:02}]", seconds / 60, seconds % 60);
}

/// A manifest as it is applied.
pub fn manifest(text: &str) {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.for_each(|line| println!("    {line}"));
}
