//! A proxy in front of an S3 server that can be told to misbehave while it runs.
//!
//! It speaks HTTP/1.1 and ends the connection after each answer, so that one connection is one
//! request. Requests pass as they are, the Host header included: signatures stay good.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::wait::eventually;

/// How the proxy misbehaves. A new one counts at once, also for answers that are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not at all.
    None,
    /// Connections are refused, and those that are open are cut.
    Refuse,
    /// Connections are accepted and nothing is ever said.
    Stall,
    /// Every request is answered with this status, without asking the server.
    Answer(u16),
    /// An answer's body is cut after so many bytes.
    Truncate(u64),
    /// An answer's body comes at so many bytes a second.
    Throttle(u64),
    /// The bodies of all answers together come at so many bytes a second.
    Share(u64),
}

/// A request that came to the proxy, answered or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query, as they were sent.
    pub target: String,
    /// The Range header, if there was one.
    pub range: Option<String>,
}

/// The proxy. It ends when it is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    upstream: SocketAddr,
    seen: Mutex<Vec<Seen>>,
    body_bytes: AtomicU64,
    /// When the next piece may be sent by those that share.
    turn: Mutex<Instant>,
}

impl FaultProxy {
    /// Starts a proxy for the server at `upstream`, at the same address with another port.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((upstream.ip(), 0))
            .await
            .context("a port")?;
        let address = listener.local_addr()?;
        let (fault, told) = watch::channel(Fault::None);
        let shared = Arc::new(Shared {
            upstream,
            seen: Mutex::default(),
            body_bytes: AtomicU64::new(0),
            turn: Mutex::new(Instant::now()),
        });
        let accepting = tokio::spawn(accept(listener, told, Arc::clone(&shared)));
        Ok(Self {
            address,
            fault,
            shared,
            accepting,
        })
    }

    /// `http://` and its address: what takes the place of the server's endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Misbehaves in this way from now on. Returns when that is in effect.
    pub async fn set(&self, fault: Fault) -> Result<()> {
        *self.shared.next_turn() = Instant::now();
        self.fault.send_replace(fault);
        eventually(
            "the proxy does as it is told",
            Duration::from_secs(10),
            async || {
                let refused = TcpStream::connect(self.address).await.is_err();
                ensure!(
                    refused == (fault == Fault::Refuse),
                    "connections refused: {refused}"
                );
                Ok(())
            },
        )
        .await
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many bytes of bodies it has handed out so far.
    pub fn body_bytes(&self) -> u64 {
        self.shared.body_bytes.load(Ordering::SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(first: TcpListener, mut fault: watch::Receiver<Fault>, shared: Arc<Shared>) {
    let Ok(address) = first.local_addr() else {
        return;
    };
    let mut listener = Some(first);
    loop {
        if *fault.borrow_and_update() == Fault::Refuse {
            listener = None; // only a port that nobody listens on refuses
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        tokio::select! {
            Some(Ok((client, _))) = accept_if(listener.as_ref()) => {
                let (fault, shared) = (fault.clone(), Arc::clone(&shared));
                // How an exchange ends is the client's to judge.
                tokio::spawn(async move { exchange(client, fault, &shared).await.ok() });
            }
            changed = fault.changed() => if changed.is_err() { return },
        }
    }
}

async fn accept_if(
    listener: Option<&TcpListener>,
) -> Option<std::io::Result<(TcpStream, SocketAddr)>> {
    match listener {
        Some(listener) => Some(listener.accept().await),
        None => std::future::pending().await,
    }
}

/// One request and its answer.
async fn exchange(
    client: TcpStream,
    mut fault: watch::Receiver<Fault>,
    shared: &Shared,
) -> Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (head, rest) = read_head(&mut from_client).await?;
    shared
        .seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(parse(&head)?);
    let told = *fault.borrow();
    match told {
        Fault::Refuse => return Ok(()),
        Fault::Stall => {
            // Until it is told otherwise; then the connection is cut.
            fault.wait_for(|told| *told != Fault::Stall).await?;
            return Ok(());
        }
        Fault::Answer(status) => {
            let body = "<Error><Code>SlowDown</Code><Message>injected</Message></Error>";
            let head = format!(
                "HTTP/1.1 {status} Injected\r\nContent-Type: application/xml\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            to_client.write_all((head + body).as_bytes()).await?;
            // A body that nobody reads would make the kernel reset the connection, and the client
            // lose the answer.
            tokio::io::copy(&mut from_client, &mut tokio::io::sink()).await?;
            return Ok(());
        }
        Fault::None | Fault::Truncate(_) | Fault::Throttle(_) | Fault::Share(_) => {}
    }
    let (from_server, mut to_server) = TcpStream::connect(shared.upstream).await?.into_split();
    to_server
        .write_all(close_afterwards(&head).as_bytes())
        .await?;
    to_server.write_all(&rest).await?;
    let request = async {
        let sent = tokio::io::copy(&mut from_client, &mut to_server).await;
        sent.map(|_| ()).context("the request's body")
    };
    let answer = answer(from_server, to_client, &mut fault, shared);
    // The client may keep its side open; the answer's end is the end.
    tokio::select! {
        done = answer => done,
        Err(error) = request => Err(error),
    }
}

async fn answer(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    fault: &mut watch::Receiver<Fault>,
    shared: &Shared,
) -> Result<()> {
    let (head, mut chunk) = read_head(&mut server).await?;
    client.write_all(head.as_bytes()).await?;
    let mut sent = 0;
    loop {
        let told = *fault.borrow();
        let mut allowed = chunk.len() as u64;
        match told {
            Fault::Refuse => return Ok(()),
            Fault::Truncate(after) => allowed = allowed.min(after.saturating_sub(sent)),
            Fault::Throttle(rate) => {
                tokio::time::sleep(time(allowed, rate)).await;
            }
            Fault::Share(rate) => {
                let turn = shared.turn(time(allowed, rate));
                tokio::select! {
                    () = tokio::time::sleep_until(turn) => {}
                    other = fault.wait_for(|now| *now != told) => drop(other?),
                }
            }
            Fault::None | Fault::Stall | Fault::Answer(_) => {}
        }
        let part = usize::try_from(allowed).context("a chunk")?;
        client.write_all(&chunk[..part]).await?;
        sent += allowed;
        shared.body_bytes.fetch_add(allowed, Ordering::SeqCst);
        if part < chunk.len() {
            return Ok(());
        }
        // Small pieces when throttled, so that a change of mind is soon in effect.
        let piece = match told {
            Fault::Throttle(rate) => (rate / 10).clamp(1, 1 << 16),
            // Smaller still: others wait for each.
            Fault::Share(rate) => (rate / 10).clamp(1, 1 << 12),
            _ => 1 << 16,
        };
        chunk.resize(usize::try_from(piece).context("a piece")?, 0);
        let read = tokio::select! {
            read = server.read(&mut chunk) => read?,
            refused = fault.wait_for(|told| *told == Fault::Refuse) => {
                refused?;
                return Ok(());
            }
        };
        if read == 0 {
            return Ok(());
        }
        chunk.truncate(read);
    }
}

impl Shared {
    /// When a piece may be sent that takes so long.
    fn turn(&self, takes: Duration) -> Instant {
        let mut turn = self.next_turn();
        let mine = (*turn).max(Instant::now()) + takes;
        *turn = mine;
        mine
    }

    fn next_turn(&self) -> MutexGuard<'_, Instant> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long so many bytes take.
fn time(bytes: u64, rate: u64) -> Duration {
    Duration::from_nanos(bytes * 1_000_000_000 / rate.max(1))
}

/// Reads up to the empty line; also returns what came after it already.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<(String, Vec<u8>)> {
    const END: &[u8] = b"\r\n\r\n";
    let mut bytes = Vec::new();
    loop {
        if let Some(at) = bytes.windows(END.len()).position(|window| window == END) {
            let rest = bytes.split_off(at + END.len());
            return Ok((String::from_utf8(bytes).context("a head is text")?, rest));
        }
        ensure!(bytes.len() < 1 << 16, "a head is smaller");
        ensure!(stream.read_buf(&mut bytes).await? > 0, "the head is cut");
    }
}

fn parse(head: &str) -> Result<Seen> {
    let mut words = head.split(' ');
    let (method, target) = (words.next(), words.next());
    Ok(Seen {
        method: method.context("a request has a method")?.to_owned(),
        target: target.context("a request has a target")?.to_owned(),
        range: header(head, "range").map(str::to_owned),
    })
}

fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then(|| value.trim())
    })
}

/// The same head, asking the server to end the connection after its answer.
fn close_afterwards(head: &str) -> String {
    let kept = head.trim_end().split("\r\n").filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        !name.eq_ignore_ascii_case("connection")
    });
    let lines: Vec<&str> = kept.chain(["Connection: close", "", ""]).collect();
    lines.join("\r\n")
}

#[cfg(test)]
mod tests;
