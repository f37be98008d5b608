//! The archive engine beside the pipelines that people write and the programs that they use, between
//! a real S3 server and a volume of the driver, durable at the end.

mod bounds;
mod contest;
mod data;
mod packing;
mod peaks;
mod runs;

use anyhow::{Result, anyhow};
use tests::s3::S3Server;

use self::bounds::Tree;
use self::contest::{Bench, Goal, PEAK, Way};
use self::data::Data;
use self::runs::{BUCKET, Runs};
use crate::driver::Driver;
use crate::interruption;
use crate::table::Row;

/// What one must know to read the figures.
pub const NOTE: &str = "Medians of three, each in turn, between versitygw on loopback and an ext4 \
volume of the driver, caches dropped and all synced before,\nsync -f after (ours: syncfs, part of \
the command). ratio: ours / peer, goal: the most that ours may be. rclone: `rclone cat OBJECT | ...`, \
curl: `curl\nPRESIGNED | ...`. restic and kopia (KOPIA names it) have their repositories on the same \
server, and their caches warm. Alone: fetching is curl to\n/dev/null; decoding is libzstd, two \
threads, from memory to nowhere; writing is one file in direct writes of 1 MiB; creating is the \
same files from\nmemory by two threads. CPU: user and system seconds of all processes of the command. \
Peak: VmHWM.";

/// A pipeline that people write.
struct Peer {
    name: &'static str,
    script: &'static str,
    goal: Option<Goal>,
}

const fn peer(name: &'static str, script: &'static str) -> Peer {
    Peer {
        name,
        script,
        goal: None,
    }
}

const GZIP: [Peer; 3] = [
    Peer {
        name: "rclone, tar xz",
        script: "rclone cat \"$OBJECT\" | tar xz -C \"$FOLDER\"; sync -f \"$FOLDER\"",
        goal: Some(Goal::Faster(6.0)),
    },
    peer(
        "curl, pigz, tar x",
        "curl -sf \"$URL\" | pigz -dc | tar x -C \"$FOLDER\"; sync -f \"$FOLDER\"",
    ),
    peer(
        "curl, igzip, tar x",
        "curl -sf \"$URL\" | igzip -dc | tar x -C \"$FOLDER\"; sync -f \"$FOLDER\"",
    ),
];

const ZSTD: [Peer; 1] = [peer(
    "rclone, zstd, tar x",
    "rclone cat \"$OBJECT\" | zstd -dc | tar x -C \"$FOLDER\"; sync -f \"$FOLDER\"",
)];

const PLAIN: [Peer; 2] = [
    peer(
        "rclone, tar x --sparse",
        "rclone cat \"$OBJECT\" | tar x --sparse -C \"$FOLDER\"; sync -f \"$FOLDER\"",
    ),
    peer(
        "curl, tar x --sparse",
        "curl -sf \"$URL\" | tar x --sparse -C \"$FOLDER\"; sync -f \"$FOLDER\"",
    ),
];

const FETCH: &str = "curl -sf \"$URL\" > /dev/null";

const RESTIC: &str =
    "restic -r \"$STORE/restic\" restore -q latest --target \"$FOLDER\"; sync -f \"$FOLDER\"";
const RESTIC_BEFORE: &str = "restic -r \"$STORE/restic\" init -q; cd \"$FOLDER\"; \
    restic -r \"$STORE/restic\" backup -q .";

/// The snapshot of a folder is restored by the name of the folder.
const KOPIA: &str = "\"$KOPIA\" restore \"$SOURCE\" \"$FOLDER\"; sync -f \"$FOLDER\"";
const KOPIA_BEFORE: &str = "\"$KOPIA\" repository create s3 --bucket=\"$BUCKET\" --prefix=kopia/ \
    --endpoint=\"$ADDRESS\" --disable-tls --access-key=\"$AWS_ACCESS_KEY_ID\" \
    --secret-access-key=\"$AWS_SECRET_ACCESS_KEY\"; \"$KOPIA\" snapshot create \"$FOLDER\"";

/// All cases, or those of one data set or `memory`. What was measured is there when the rest fails.
pub async fn measure(rows: &mut Vec<Row>, only: Option<&str>) -> Result<()> {
    let server = S3Server::alone("bench-archives").await?;
    let mut driver = Driver::start().await?;
    let measured = tokio::select! {
        measured = cases(&server, &mut driver, rows, only) => measured,
        () = interruption::happened() => Err(anyhow!("interrupted")),
    };
    let stopped = driver.stop();
    server.stop().await?;
    measured.and(stopped)
}

async fn cases(
    server: &S3Server,
    driver: &mut Driver,
    rows: &mut Vec<Row>,
    only: Option<&str>,
) -> Result<()> {
    let wants = |name: &str| only.is_none_or(|only| only == name);
    server.create_bucket(BUCKET).await?;
    let mut bench = Bench {
        runs: Runs::new(server)?,
        driver,
        rows,
    };
    if wants("db") {
        database(&mut bench).await?;
    }
    if wants("tree") {
        tree(&mut bench).await?;
    }
    for set in ["wal", "sparse"].into_iter().filter(|set| wants(set)) {
        let data = Data::make(set)?;
        restores(&mut bench, &data, "tar", "cat", &PLAIN, Goal::Faster(2.0)).await?;
    }
    if wants("memory") {
        peaks::measure(&mut bench).await?;
    }
    Ok(())
}

/// Restores an archive that GNU tar made, beside these.
async fn restores(
    bench: &mut Bench<'_>,
    data: &Data,
    suffix: &str,
    compress: &str,
    peers: &[Peer],
    goal: Goal,
) -> Result<()> {
    let key = format!("{}.{suffix}", data.name());
    let archive = data.pack(&key, compress)?;
    bench.upload(&key, &archive).await?;
    beside(bench, data, &key, &key, peers, goal).await
}

/// Restores an archive beside these; `goal` is for the fastest of them.
async fn beside(
    bench: &mut Bench<'_>,
    data: &Data,
    key: &str,
    case: &str,
    peers: &[Peer],
    goal: Goal,
) -> Result<()> {
    let mut ways = vec![Way::Ours];
    ways.extend(peers.iter().map(|peer| Way::Script(peer.script)));
    let figures = bench.contest(data, key, &ways).await?;
    let (ours, others) = (figures[0], &figures[1..]);
    let alone = peers.len() == 1;
    for (peer, theirs) in peers.iter().zip(others) {
        let goal = if alone { Some(goal) } else { peer.goal };
        bench.compare(&format!("{case} / {}", peer.name), ours, *theirs, goal);
    }
    if !alone {
        let theirs = others.iter().map(|it| it.seconds).fold(f64::MAX, f64::min);
        bench.row(&format!("{case} / the best"), ours.seconds, theirs, goal);
    }
    bench.peak(case, ours, PEAK);
    Ok(())
}

/// Few large files.
async fn database(bench: &mut Bench<'_>) -> Result<()> {
    let data = Data::make("db")?;
    let best = Goal::Faster(2.5);
    restores(bench, &data, "tar.gz", "gzip -6", &GZIP, best).await?;
    restores(bench, &data, "tar.zst", "zstd -q -3 --check", &ZSTD, best).await?;
    packing::measure(bench, &data).await?;
    let (key, case) = (packing::key(&data), "db.tar.zst, ours");
    beside(bench, &data, &key, case, &ZSTD, Goal::Faster(3.0)).await?;
    // Apart from the others: what reads and writes here is no restore.
    let archive = bench.download(&key).await?;
    let stages = [
        Way::Ours,
        Way::Script(FETCH),
        Way::Decode(&archive),
        Way::Write(1024),
    ];
    let figures = bench.contest(&data, &key, &stages).await?;
    let mut slowest = 0.0;
    for (stage, alone) in ["fetching", "decoding", "writing"]
        .iter()
        .zip(&figures[1..])
    {
        let row = format!("{case} / {stage} alone");
        bench.rows.push(Row::new(
            &row,
            figures[0].seconds,
            Some(alone.seconds),
            None,
            "s",
        ));
        slowest = alone.seconds.max(slowest);
    }
    let row = format!("{case} / the slowest of these");
    bench.row(&row, figures[0].seconds, slowest, Goal::Within(1.3));
    Ok(())
}

/// Many small files.
async fn tree(bench: &mut Bench<'_>) -> Result<()> {
    let data = Data::make("tree")?;
    let zstd = "zstd -q -3 --check";
    restores(bench, &data, "tar.zst", zstd, &ZSTD, Goal::Faster(1.25)).await?;
    let contents = Tree::read(&data.tree())?;
    bench.runs.prepare(RESTIC_BEFORE, "", &data.tree()).await?;
    let mut ways = vec![Way::Ours, Way::Create(&contents), Way::Script(RESTIC)];
    let mut names = vec![
        ("created from memory", Goal::Within(1.2)),
        ("restic restore", Goal::Faster(3.0)),
    ];
    let kopia = format!("SOURCE='{}'; {KOPIA}", data.tree().display());
    if std::env::var_os("KOPIA").is_some() {
        bench.runs.prepare(KOPIA_BEFORE, "", &data.tree()).await?;
        ways.push(Way::Script(&kopia));
        names.push(("kopia restore", Goal::Faster(3.0)));
    } else {
        println!("kopia: not measured here; KOPIA names its program");
    }
    let figures = bench.contest(&data, "tree.tar.zst", &ways).await?;
    for ((name, goal), theirs) in names.into_iter().zip(&figures[1..]) {
        let case = format!("tree.tar.zst / {name}");
        bench.compare(&case, figures[0], *theirs, Some(goal));
    }
    packing::measure(bench, &data).await
}
