//! The archive engine beside the pipelines that people write: from a real S3 server into a volume of
//! the driver, durable at the end.

mod data;
mod runs;

use anyhow::{Context as _, Result, anyhow};
use tests::s3::S3Server;

use self::data::Data;
use self::runs::{Figures, Runs};
use crate::driver::Driver;
use crate::interruption;
use crate::table::Row;

/// What one must know to read the figures.
pub const NOTE: &str = "Medians of three, each pair in turn, from versitygw on loopback into a new ext4 \
volume of the driver, caches dropped before,\nsync -f after (ours: syncfs, part of the command). peer: \
`curl PRESIGNED | DECOMPRESSOR | tar x`, and where there are several,\nthe fastest. CPU: user and \
system seconds of all processes of the command. Peak: VmHWM.";

const BUCKET: &str = "bench";

/// How often each command runs.
const TIMES: usize = 3;

/// One archive, how others unpack it, and how many times faster than they ours has to be.
struct Case {
    data: &'static str,
    suffix: &'static str,
    /// What makes the archive of a tar, from standard input.
    compress: &'static str,
    /// What stands between `curl` and `tar`, and tar's options.
    peers: &'static [(&'static str, &'static str, &'static str)],
    goal: f64,
}

const CASES: [Case; 5] = [
    Case {
        data: "db",
        suffix: "tar.gz",
        compress: "gzip -6",
        peers: &[
            ("tar xz", "gzip -dc", ""),
            ("pigz", "pigz -dc", ""),
            ("igzip", "igzip -dc", ""),
        ],
        goal: 2.5,
    },
    Case {
        data: "db",
        suffix: "tar.zst",
        compress: "zstd -q -3 --check",
        peers: &[("zstd", "zstd -dc", "")],
        goal: 2.5,
    },
    Case {
        data: "tree",
        suffix: "tar.zst",
        compress: "zstd -q -3 --check",
        peers: &[("zstd", "zstd -dc", "")],
        goal: 1.25,
    },
    Case {
        data: "wal",
        suffix: "tar",
        compress: "cat",
        peers: &[("tar x", "cat", "")],
        goal: 2.0,
    },
    Case {
        data: "sparse",
        suffix: "tar",
        compress: "cat",
        peers: &[("tar x", "cat", "--sparse")],
        goal: 2.0,
    },
];

/// The largest peak of memory, in MiB.
const PEAK: f64 = 96.0;

/// All cases. What was measured is there when the rest fails.
pub async fn measure(rows: &mut Vec<Row>) -> Result<()> {
    let server = S3Server::alone("bench-archives").await?;
    let mut driver = Driver::start().await?;
    let measured = tokio::select! {
        measured = cases(&server, &mut driver, rows) => measured,
        () = interruption::happened() => Err(anyhow!("interrupted")),
    };
    let stopped = driver.stop();
    server.stop().await?;
    measured.and(stopped)
}

async fn cases(server: &S3Server, driver: &mut Driver, rows: &mut Vec<Row>) -> Result<()> {
    server.create_bucket(BUCKET).await?;
    let mut made: Option<(&str, Data)> = None;
    for case in &CASES {
        let name = format!("{}.{}", case.data, case.suffix);
        println!("{name} ...");
        let data = match made.take() {
            Some((name, data)) if name == case.data => data,
            _ => Data::make(case.data)?,
        };
        let archive = data.pack(&name, case.compress)?;
        server.put_file(BUCKET, &name, &archive).await?;
        std::fs::remove_file(&archive)?;
        rows.extend(one(server, driver, case, &name, &data).await?);
        made = Some((case.data, data));
    }
    Ok(())
}

async fn one(
    server: &S3Server,
    driver: &mut Driver,
    case: &Case,
    name: &str,
    data: &Data,
) -> Result<Vec<Row>> {
    let mut runs = Runs::new(server, BUCKET, name)?;
    let mut own = Vec::new();
    let mut others = vec![Vec::new(); case.peers.len()];
    for turn in 0..TIMES {
        let volume = driver
            .volume(&format!("ours-{turn}"), data.volume())
            .await?;
        own.push(runs.ours(&volume.staging)?);
        // Ours has to be right before it may be fast.
        data.is_same(&volume.staging)?;
        driver.remove(volume).await?;
        for (index, (_, decompressor, options)) in case.peers.iter().enumerate() {
            interruption::check()?;
            let volume = driver
                .volume(&format!("peer-{turn}"), data.volume())
                .await?;
            others[index].extend(
                runs.pipeline(decompressor, options, &volume.staging)
                    .await?,
            );
            driver.remove(volume).await?;
        }
        driver.give_back().await?;
    }
    let own = Figures::median(own).context("ours never ran")?;
    let others: Vec<_> = others.into_iter().map(Figures::median).collect();
    let best = others
        .iter()
        .flatten()
        .map(|it| it.seconds)
        .min_by(f64::total_cmp);
    let mut rows = Vec::new();
    for ((peer, ..), figures) in case.peers.iter().zip(&others) {
        let case = format!("{name} / {peer}");
        match figures {
            Some(figures) => {
                rows.push(Row::new(
                    &case,
                    own.seconds,
                    Some(figures.seconds),
                    None,
                    "s",
                ));
                rows.push(Row::new(
                    &format!("{case}, CPU"),
                    own.cpu,
                    Some(figures.cpu),
                    None,
                    "s",
                ));
            }
            None => println!("{case}: not measured here, the program is missing"),
        }
    }
    let goal = best.map(|best| best / case.goal);
    let row = format!("{name} / the best of them");
    rows.push(Row::new(&row, own.seconds, best, goal, "s"));
    let row = format!("{name}: peak memory");
    rows.push(Row::new(&row, own.peak, None, Some(PEAK), "MiB"));
    Ok(rows)
}
