//! Ways to the same end, one after the other, again and again, and the rows that come of it.

use std::fmt;
use std::path::Path;

use anyhow::Result;
use object_store::ObjectStoreExt as _;

use super::bounds::{self, Tree};
use super::data::Data;
use super::load::Load;
use super::runs::{BUCKET, Caches, Figures, Runs};
use crate::driver::Driver;
use crate::interruption;
use crate::table::Row;

/// How often each way is gone.
pub const TIMES: usize = 3;

/// The largest peak of memory, in MiB, with a window of 8 MiB at most.
pub const PEAK: f64 = 96.0;

/// How an archive becomes files in a volume, or a part of that.
pub enum Way<'a> {
    /// `populator restore`.
    Ours,
    /// A script.
    Script(&'a str),
    /// Files from memory.
    Create(&'a Tree),
    /// A zstd file to nowhere.
    Decode(&'a [u8]),
    /// That many mebibytes of nothing in particular.
    Write(u64),
}

/// How ours has to stand to another.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// That many times faster.
    Faster(f64),
    /// No more than that many times slower.
    Within(f64),
}

impl Goal {
    /// The most that ours may be.
    fn of(self, theirs: f64) -> f64 {
        match self {
            Self::Faster(times) => theirs / times,
            Self::Within(times) => theirs * times,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Faster(times) => write!(formatter, "{times} x"),
            Self::Within(times) => write!(formatter, "within {times} x"),
        }
    }
}

/// All that a case needs.
pub struct Bench<'a> {
    /// The commands.
    pub runs: Runs<'a>,
    /// Whose volumes are written to.
    pub driver: &'a mut Driver,
    /// What was measured.
    pub rows: &'a mut Vec<Row>,
}

impl Bench<'_> {
    /// Stores an archive, whose file goes.
    pub async fn upload(&self, key: &str, archive: &Path) -> Result<()> {
        self.runs.server().put_file(BUCKET, key, archive).await?;
        Ok(std::fs::remove_file(archive)?)
    }

    /// A whole archive.
    pub async fn download(&self, key: &str) -> Result<Vec<u8>> {
        let store = self.runs.server().store(BUCKET)?;
        Ok(store.get(&key.into()).await?.bytes().await?.into())
    }

    /// Each way in turn, into a new volume; the figures of each.
    pub async fn contest(
        &mut self,
        data: &Data,
        key: &str,
        ways: &[Way<'_>],
    ) -> Result<Vec<Figures>> {
        println!("{key} ...");
        let mut figures = vec![Vec::new(); ways.len()];
        for turn in 0..TIMES {
            for (way, figures) in ways.iter().zip(&mut figures) {
                interruption::check()?;
                let volume = self.driver.volume("volume", data.volume()).await?;
                let to = &volume.staging;
                figures.push(match way {
                    Way::Ours => self.runs.restore(key, to, Caches::Cold)?,
                    Way::Script(script) => self.runs.script(script, key, to).await?,
                    Way::Create(tree) => self.runs.by_ourselves(to, || tree.create(to))?,
                    Way::Decode(archive) => {
                        self.runs.by_ourselves(to, || bounds::decode(archive))?
                    }
                    Way::Write(mebibytes) => self
                        .runs
                        .by_ourselves(to, || bounds::write(to, *mebibytes))?,
                });
                // Ours has to be right before it may be fast.
                if turn == 0 && matches!(way, Way::Ours | Way::Create(_)) {
                    data.is_same(to)?;
                }
                self.driver.remove(volume).await?;
                self.driver.give_back().await?;
            }
        }
        figures.into_iter().map(Figures::median).collect()
    }

    /// A row for the time and one for the work.
    pub fn compare(&mut self, case: &str, ours: Figures, theirs: Figures, goal: Option<Goal>) {
        if let Some(goal) = goal {
            self.row(case, ours.seconds, theirs.seconds, goal);
        } else {
            let peer = Some(theirs.seconds);
            self.rows
                .push(Row::new(case, ours.seconds, peer, None, "s"));
        }
        let case = format!("{case}, CPU");
        let (ours, theirs) = (ours.load.command, theirs.load.command);
        let row = Row::new(&case, ours, Some(theirs), None, "s");
        self.rows.push(row);
    }

    /// A row of seconds with a goal.
    pub fn row(&mut self, case: &str, ours: f64, theirs: f64, goal: Goal) {
        let case = format!("{case} ({goal})");
        let row = Row::new(&case, ours, Some(theirs), Some(goal.of(theirs)), "s");
        self.rows.push(row);
    }

    /// Rows for what the machine did, beside the fastest of the others.
    pub fn load(&mut self, case: &str, ours: Load, theirs: Load) {
        let names = [
            ("CPU, server", "s"),
            ("CPU, loop devices and others", "s"),
            ("all cores", "%"),
            ("disk busy", "s"),
            ("disk, read", "MiB"),
            ("disk, written", "MiB"),
        ];
        let figures = ours.figures().into_iter().zip(theirs.figures());
        for ((what, unit), (ours, theirs)) in names.into_iter().zip(figures) {
            let case = format!("{case}: {what}");
            self.rows
                .push(Row::new(&case, ours, Some(theirs), None, unit));
        }
    }

    /// A row for the peak of memory.
    pub fn peak(&mut self, case: &str, ours: Figures, goal: f64) {
        let case = format!("{case}: peak memory");
        self.rows
            .push(Row::new(&case, ours.peak, None, Some(goal), "MiB"));
    }
}
