//! The driver is killed at random moments during random operations, with a model beside the real
//! pool: what was acknowledged is there with its content, and nothing else. What was under way
//! is done, or was never begun.
//!
//! `CRASH_ROUNDS` sets how often, `CRASH_SEED` has the same operations again.

pub mod content;
pub mod objects;
pub mod operation;
pub mod random;
pub mod world;

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::Bench;
use operation::Caller;
use random::variable;
use world::{Cut, Late, World};

/// How often it is killed, unless `CRASH_ROUNDS` says otherwise.
const ROUNDS: u64 = 40;

/// The latest moment of a round at which it is killed.
const LATEST: Duration = Duration::from_millis(400);

const POOL: [&str; 3] = ["--pool-size=4Gi", "--pool-sparse", "--no-http"];

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill_and_nothing_else() {
    let rounds = variable("CRASH_ROUNDS").unwrap_or(ROUNDS);
    let began = Instant::now();
    let mut world = World::new(Bench::new(), "kill");
    let mut driver = world.bench.start_with(&POOL).await;
    for round in 1..=rounds {
        let mut caller = Caller::of(&driver).await;
        let pid = Pid::from_raw(i32::try_from(driver.pid()).unwrap()).unwrap();
        let cut = Cut::after(world.random.moment(LATEST), move || {
            kill_process(pid, Signal::KILL).unwrap();
        });
        let under_way = world.work(&mut caller, &cut, Late::Counts).await;
        cut.end();
        driver.kill();
        driver = world.bench.start_with(&POOL).await;
        let mut caller = Caller::of(&driver).await;
        world.settle(&mut caller, under_way.as_ref()).await;
        world.finish(&mut caller, under_way).await;
        world.check_node();
        world.check_content(&mut caller, 1, 1).await;
        if round % 100 == 0 {
            println!("{round} kills, {:?}", began.elapsed());
        }
    }
    let mut caller = Caller::of(&driver).await;
    world.close(&mut caller).await;
    println!("kill -9: {rounds} rounds in {:?}, {world}", began.elapsed());
    println!("  everything acknowledged was there, and nothing else");
}
