//! Unix sockets, to serve on and to call.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use tokio::net::UnixSocket;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::authority::Connection;

/// Callers that may wait to be accepted: more than kubelet and all sidecars together have open.
const BACKLOG: u32 = 128;

/// Why a socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Something that is no socket is in the way, and is left alone.
    #[error("{} is not a socket; remove it or choose another endpoint", .0.display())]
    Occupied(PathBuf),
    /// The stale socket of an earlier process does not go.
    #[error("cannot remove the old socket {}: {source}", .path.display())]
    Remove {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The socket cannot be made; mostly its directory is missing.
    #[error("cannot listen on {}: {source}; its directory must exist and be writable", .path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Why a socket cannot be called, ever. A socket that is merely absent is no such error.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// tonic takes the path as text.
    #[error("the socket path {} is not UTF-8; choose another one", .0.display())]
    Text(PathBuf),
}

/// Listens on a new socket at `path` that only this user may open (mode 0600, from its first
/// moment on). The stream goes into tonic's `serve_with_incoming_shutdown`.
///
/// A socket that an earlier process left there is replaced; anything else there is an error. The
/// socket stays when the stream is dropped: by then a successor may own the path.
///
/// # Panics
/// Outside a tokio runtime.
pub fn listen(
    path: &Path,
) -> Result<impl Stream<Item = io::Result<Connection>> + Send + Unpin + use<>, ListenError> {
    match path.symlink_metadata() {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::Occupied(path.to_owned()));
        }
        Ok(_) => std::fs::remove_file(path).map_err(|source| ListenError::Remove {
            path: path.to_owned(),
            source,
        })?,
        // Absent, or out of reach: then bind says so.
        Err(_) => {}
    }
    let listener = bind(path).map_err(|source| ListenError::Bind {
        path: path.to_owned(),
        source,
    })?;
    Ok(listener.map(|accepted| accepted.map(Connection::new)))
}

fn bind(path: &Path) -> io::Result<UnixListenerStream> {
    let socket = UnixSocket::new_stream()?;
    // Linux gives the file the mode that its socket has when it is bound. To change the file
    // afterwards would leave a window, and a umask would reach other threads.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(path)?;
    socket.listen(BACKLOG).map(UnixListenerStream::new)
}

/// A channel to the server on the socket at `path`.
///
/// It connects with the first call and again after the server went away; a call while nobody
/// listens is UNAVAILABLE. `timeout` bounds each call, the connecting included, up to the first
/// message of its answer, and a call that takes longer is CANCELLED. A request may ask for less
/// ([`tonic::Request::set_timeout`]), not more; only that way is the server told too.
///
/// # Panics
/// Outside a tokio runtime.
pub fn connect(path: &Path, timeout: Duration) -> Result<Channel, ConnectError> {
    let text = std::str::from_utf8(path.as_os_str().as_bytes())
        .map_err(|_| ConnectError::Text(path.to_owned()))?;
    Ok(Endpoint::from_shared(format!("unix://{text}"))
        .expect("tonic takes any path after unix://")
        // What kubelet sends as :authority; some servers refuse the path, which is gRPC's default.
        .origin(Uri::from_static("http://localhost"))
        .connect_timeout(timeout)
        .timeout(timeout)
        .connect_lazy())
}
