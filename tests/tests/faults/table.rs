//! The table of (step, event): restores of both ways are held at every step, each event happens, and
//! every restore ends bound to complete data, or with its sentence, or gone. Nothing is left behind.

mod aftermath;
mod ends;
mod event;
mod figure;
mod leftovers;
mod round;
mod step;
mod stores;
mod watch;

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream};
use strum::IntoEnumIterator as _;
use tests::shared::{SharedSuite, World};

use self::{
    event::Event,
    figure::Table,
    round::{Archives, Round},
    step::Step,
    watch::Outcome,
};

/// Rounds of private events that are under way at the same time.
const AT_ONCE: usize = 4;

pub fn add(suite: &mut SharedSuite) {
    // Last: it takes a node away.
    suite.test("every_event_at_every_step_has_its_end", table);
}

async fn table(world: &World) -> Result<()> {
    let archives = &Archives::make()?;
    let (private, public): (Vec<_>, Vec<_>) =
        events()?.into_iter().partition(|event| event.is_private());
    let mut table = Table::new();
    let mut behind = Vec::new();
    // All private ones at a time, every other one alone.
    let rounds = [private]
        .into_iter()
        .chain(public.into_iter().map(|it| vec![it]));
    for events in rounds.filter(|events| !events.is_empty()) {
        let (since, before) = (Instant::now(), leftovers::look(world).await?);
        let met = |event| async move { (event, met(world, event, archives).await) };
        let round = stream::iter(events.clone())
            .map(met)
            .buffer_unordered(AT_ONCE);
        table.extend(round.collect::<Table>().await);
        let names: Vec<_> = events.iter().map(|event| event.name()).collect();
        let names = names.join(", ");
        println!("  {:.0} s: {names}", since.elapsed().as_secs_f64());
        if let Err(error) = leftovers::none_but(world, &before).await {
            behind.push(format!("after {names}: {error:#}"));
        }
    }
    figure::print(&table);
    let cells = table
        .iter()
        .flat_map(|(event, outcomes)| outcomes.iter().map(move |(step, it)| (event, step, it)));
    let wrong: Vec<_> = cells
        .filter_map(|(event, step, it)| Some((event, step, it.as_ref().err()?)))
        .collect();
    ensure!(
        wrong.is_empty() && behind.is_empty(),
        "{wrong:#?}\n{behind:#?}"
    );
    Ok(())
}

/// All events, or those that `TABLE_EVENTS` names.
fn events() -> Result<Vec<Event>> {
    let Ok(wanted) = std::env::var("TABLE_EVENTS") else {
        return Ok(Event::iter().collect());
    };
    let named = |name: &str| {
        let found = Event::iter().find(|event| event.key() == name);
        found.with_context(|| format!("TABLE_EVENTS: no event is called {name}"))
    };
    wanted.split(',').map(named).collect()
}

/// One event: what became of the restore at each step.
async fn met(world: &World, event: Event, archives: &Archives) -> BTreeMap<Step, Outcome> {
    match Box::pin(outcomes(world, event, archives)).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            let failed = |step| (step, Err(format!("the round failed: {error:#}")));
            Step::iter().map(failed).collect()
        }
    }
}

async fn outcomes(
    world: &World,
    event: Event,
    archives: &Archives,
) -> Result<BTreeMap<Step, Outcome>> {
    let begun = Instant::now();
    let mut round = Round::prepare(world, event, archives).await?;
    round.arrange().await?;
    let (held, struck) = (begun.elapsed(), round.strike().await?);
    let mut outcomes = watch::ends(&round, struck).await;
    event.end(&round).await?;
    let (ended, since) = (struck.elapsed(), Instant::now());
    round.judge(&mut outcomes).await?;
    println!(
        "  {}: all held after {} s, all ended {} s after it, all read and gone {} s later",
        event.name(),
        held.as_secs(),
        ended.as_secs(),
        since.elapsed().as_secs()
    );
    Ok(outcomes)
}
