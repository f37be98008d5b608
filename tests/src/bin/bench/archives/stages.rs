//! The stages of a restore, each alone: the whole is not faster than the slowest of them.

use anyhow::Result;

use super::contest::{Bench, Goal, Way};
use super::data::Data;
use crate::table::Row;

const FETCH: &str = "curl -sf \"$URL\" > /dev/null";

/// Ours beside each of its stages, apart from its peers: fetching, `decoding`, and writing so many
/// mebibytes. With a goal, that many times slower than the slowest it may be.
pub async fn measure<const N: usize>(
    bench: &mut Bench<'_>,
    data: &Data,
    key: &str,
    case: &str,
    decoding: [(&str, Way<'_>); N],
    mebibytes: u64,
    goal: Option<f64>,
) -> Result<()> {
    let mut names = vec!["fetching"];
    let mut ways = vec![Way::Ours, Way::Script(FETCH)];
    for (name, way) in decoding {
        names.push(name);
        ways.push(way);
    }
    names.push("writing");
    ways.push(Way::Write(mebibytes));
    let figures = bench.contest(data, key, &ways).await?;
    let (ours, alone) = (figures[0].seconds, &figures[1..]);
    for (stage, alone) in names.iter().zip(alone) {
        let row = format!("{case} / {stage} alone");
        let row = Row::new(&row, ours, Some(alone.seconds), None, "s");
        bench.rows.push(row);
    }
    if let Some(times) = goal {
        let slowest = alone.iter().map(|it| it.seconds).fold(0.0, f64::max);
        let row = format!("{case} / the slowest of these");
        bench.row(&row, ours, slowest, Goal::Within(times));
    }
    Ok(())
}
