//! The archive engine beside the pipelines that people write and the programs that they use, between
//! a real S3 server and a volume of the driver, durable at the end.

mod bounds;
mod contest;
mod data;
mod load;
mod packing;
mod peaks;
mod runs;
mod stages;

use anyhow::{Context as _, Result, anyhow};
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
threads, from memory to nowhere, if not said otherwise; writing is one file in direct writes of 1 MiB; creating is the \
same files from\nmemory by two threads. CPU: user and system seconds of all processes of the command; others: of \
all that is neither command nor\nserver, most of it the kernel's threads of loop devices and journals; all \
cores: how much of them was used, by whomever; disk: the one of temporary files. Peak: VmHWM.";

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

const IGZIP: &str = "curl -sf \"$URL\" | igzip -dc > /dev/null";

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
    for (set, mebibytes) in [("wal", 1024), ("sparse", 200)] {
        if wants(set) {
            plain(&mut bench, set, mebibytes).await?;
        }
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
    let best = others.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let best = *best.context("nobody to compare with")?;
    let alone = peers.len() == 1;
    for (peer, theirs) in peers.iter().zip(others) {
        let goal = if alone { Some(goal) } else { peer.goal };
        bench.compare(&format!("{case} / {}", peer.name), ours, *theirs, goal);
    }
    if !alone {
        bench.row(
            &format!("{case} / the best"),
            ours.seconds,
            best.seconds,
            goal,
        );
    }
    bench.load(case, ours.load, best.load);
    bench.peak(case, ours, PEAK);
    Ok(())
}

/// Few large files.
async fn database(bench: &mut Bench<'_>) -> Result<()> {
    let data = Data::make("db")?;
    let best = Goal::Faster(2.5);
    restores(bench, &data, "tar.gz", "gzip -6", &GZIP, best).await?;
    let decode = ("fetching and decoding, igzip", Way::Script(IGZIP));
    let case = "db.tar.gz";
    stages::measure(bench, &data, case, case, [decode], 1024, None).await?;
    restores(bench, &data, "tar.zst", "zstd -q -3 --check", &ZSTD, best).await?;
    let archive = bench.download("db.tar.zst").await?;
    let decode = ("decoding", Way::Decode(&archive));
    let case = "db.tar.zst";
    stages::measure(bench, &data, case, case, [decode], 1024, None).await?;
    packing::measure(bench, &data).await?;
    let (key, case) = (packing::key(&data), "db.tar.zst, ours");
    beside(bench, &data, &key, case, &ZSTD, Goal::Faster(3.0)).await?;
    let archive = bench.download(&key).await?;
    let decode = ("decoding", Way::Decode(&archive));
    stages::measure(bench, &data, &key, case, [decode], 1024, Some(1.3)).await
}

/// What is not compressed, with so much data in it.
async fn plain(bench: &mut Bench<'_>, set: &'static str, mebibytes: u64) -> Result<()> {
    let data = Data::make(set)?;
    restores(bench, &data, "tar", "cat", &PLAIN, Goal::Faster(2.0)).await?;
    let case = format!("{set}.tar");
    stages::measure(bench, &data, &case, &case, [], mebibytes, None).await
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
