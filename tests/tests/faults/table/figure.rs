//! The table, as it is printed.

use std::collections::BTreeMap;

use strum::IntoEnumIterator as _;

use super::{
    event::Event,
    step::{Step, Way},
    watch::Outcome,
};

/// What became of all restores.
pub type Table = BTreeMap<Event, BTreeMap<Step, Outcome>>;

/// Prints it: the ends, and how many seconds after the event each was seen.
pub fn print(table: &Table) {
    for way in [Way::Direct, Way::Prime] {
        let mut columns = vec![events(table)];
        let steps = Step::iter().filter(|step| step.way() == way);
        columns.extend(steps.map(|step| column(table, step)));
        println!("\n  {way:?}: ends, and seconds from the event to them");
        let widths: Vec<_> = columns.iter().map(|column| width(column)).collect();
        for line in 0..=table.len() {
            let cells = columns.iter().zip(&widths);
            let cells = cells.map(|(column, width)| format!("{:<width$}", column[line]));
            println!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
    }
}

fn events(table: &Table) -> Vec<String> {
    let names = table.keys().map(|event| event.name().to_owned());
    [String::new()].into_iter().chain(names).collect()
}

fn column(table: &Table, step: Step) -> Vec<String> {
    let cells = table.values().map(|outcomes| match outcomes.get(&step) {
        Some(Ok((end, after))) => format!("{end} {}", after.as_secs()),
        Some(Err(_)) => "WRONG".to_owned(),
        None => "-".to_owned(),
    });
    [step.name().to_owned()].into_iter().chain(cells).collect()
}

fn width(column: &[String]) -> usize {
    column.iter().map(String::len).max().unwrap_or_default()
}
