//! What the whole machine did while a command ran: who had its cores, and what its disk did. It tells
//! what a command that is slower than hoped was held up by.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Seconds of all cores together, and of the disk, between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// What there was: the time that passed, for each of the cores.
    pub available: f64,
    /// The command, all its processes.
    pub command: f64,
    /// The S3 server.
    pub server: f64,
    /// Everything else: the kernel's threads for loop devices, journals and writing back, and what else
    /// the machine does.
    pub others: f64,
    /// All that ran, and what was stolen, as the kernel counts it.
    pub busy: f64,
    /// For how long the disk had something to do; 0 where files are on no disk that the kernel names (in
    /// memory, on btrfs).
    pub disk: f64,
    /// What it read, in MiB.
    pub read: f64,
    /// What it wrote.
    pub written: f64,
}

impl Load {
    /// Server, others, how much of the cores was used by whomever in percent, disk, read, written.
    pub fn figures(&self) -> [f64; 6] {
        let cores = 100.0 * self.busy / self.available;
        [
            self.server,
            self.others,
            cores,
            self.disk,
            self.read,
            self.written,
        ]
    }
}

/// Counters since the machine started.
#[derive(Clone, Copy)]
struct Counters {
    busy: f64,
    idle: f64,
    stolen: f64,
    server: f64,
    disk: Disk,
}

#[derive(Clone, Copy, Default)]
struct Disk {
    seconds: f64,
    read: f64,
    written: f64,
}

/// A measurement under way.
pub struct Meter {
    server: u32,
    disk: (u32, u32),
    begin: Counters,
}

impl Meter {
    /// Begins; `folder` is on the disk that counts.
    pub fn start(server: u32, folder: &Path) -> Result<Self> {
        let device = rustix::fs::stat(folder)?.st_dev;
        let disk = (rustix::fs::major(device), rustix::fs::minor(device));
        let begin = Counters::now(server, disk)?;
        Ok(Self {
            server,
            disk,
            begin,
        })
    }

    /// What was done since, given the CPU seconds of the command.
    pub fn stop(self, command: f64) -> Result<Load> {
        let (begin, end) = (self.begin, Counters::now(self.server, self.disk)?);
        let (busy, server) = (end.busy - begin.busy, end.server - begin.server);
        let stolen = end.stolen - begin.stolen;
        Ok(Load {
            available: busy + stolen + end.idle - begin.idle,
            command,
            server,
            // The counters are in hundredths, each rounded by itself.
            others: ((busy - server - command) * 100.0).round().max(0.0) / 100.0,
            busy: busy + stolen,
            disk: end.disk.seconds - begin.disk.seconds,
            read: end.disk.read - begin.disk.read,
            written: end.disk.written - begin.disk.written,
        })
    }
}

impl Counters {
    fn now(server: u32, disk: (u32, u32)) -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let [busy, idle, stolen] = cores(&stat).context("/proc/stat")?;
        Ok(Self {
            busy,
            idle,
            stolen,
            server: spent(&server.to_string(), Whose::Own)?,
            disk: Disk::of(&fs::read_to_string("/proc/diskstats")?, disk).unwrap_or_default(),
        })
    }
}

/// Seconds that all cores were busy, idle and stolen (`proc_stat(5)`, in hundredths).
fn cores(stat: &str) -> Option<[f64; 3]> {
    let mut all = stat.lines().next()?.strip_prefix("cpu")?.split_whitespace();
    let mut next = || all.next()?.parse::<f64>().ok().map(|it| it / 100.0);
    let [user, nice, system] = [next()?, next()?, next()?];
    let [idle, waiting] = [next()?, next()?];
    let [irq, soft, stolen] = [next()?, next()?, next()?];
    Some([user + nice + system + irq + soft, idle + waiting, stolen])
}

impl Disk {
    /// Of this device (`proc_diskstats(5)`: sectors of 512 bytes, milliseconds).
    fn of(stats: &str, (major, minor): (u32, u32)) -> Option<Self> {
        let wanted = [major.to_string(), minor.to_string()];
        let fields = stats.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields
                .starts_with(&[&wanted[0], &wanted[1]])
                .then_some(fields)
        })?;
        let field = |at: usize| fields.get(at)?.parse::<f64>().ok();
        Some(Self {
            read: field(5)? / 2048.0,
            written: field(9)? / 2048.0,
            seconds: field(12)? / 1000.0,
        })
    }
}

/// Of which processes.
#[derive(Clone, Copy)]
pub enum Whose {
    /// The one named.
    Own,
    /// All its children that have ended and were waited for, theirs included.
    Children,
}

/// CPU seconds of a process, user and system (`proc_pid_stat(5)`, fields 14 to 17, in hundredths).
pub fn spent(process: &str, whose: Whose) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("stat")?;
    let first = match whose {
        Whose::Own => 11,
        Whose::Children => 13,
    };
    let mut fields = fields.split(' ').skip(first);
    let mut next = || -> Result<f64> { Ok(fields.next().context("stat")?.parse()?) };
    Ok((next()? + next()?) / 100.0)
}
