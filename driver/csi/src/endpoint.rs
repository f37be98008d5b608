//! Where a plugin listens, as users and container images write it.

use std::path::{Path, PathBuf};

/// The longest path that the kernel takes for a Unix socket, in bytes (`sun_path` less its NUL).
const LONGEST: usize = 107;

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No path at all.
    #[error("the endpoint {0:?} names no socket; write unix:///path/to/csi.sock")]
    Empty(String),
    /// Another scheme than `unix:`.
    #[error("the endpoint {0:?} is not a Unix socket; write unix:///path/to/csi.sock")]
    Scheme(String),
    /// A host between `unix://` and the path, mostly for want of the third slash.
    #[error("the endpoint {0:?} has only two slashes after unix:, and needs three")]
    Host(String),
    /// More bytes than the kernel takes.
    #[error(
        "the socket path {0:?} has more than 107 bytes, the most the kernel takes; choose a shorter one"
    )]
    Long(String),
    /// A byte that no path can have.
    #[error("the endpoint {0:?} has a NUL byte; write unix:///path/to/csi.sock")]
    Nul(String),
}

/// The socket's path from `unix:///path`, `unix:path` or a plain path.
///
/// These are the forms of <https://github.com/grpc/grpc/blob/master/doc/naming.md>, and the path
/// alone, as kubelet knows sockets.
pub fn parse(text: &str) -> Result<PathBuf, EndpointError> {
    let path = if let Some(path) = text.strip_prefix("unix://") {
        if !path.is_empty() && !path.starts_with('/') {
            return Err(EndpointError::Host(text.to_owned()));
        }
        path
    } else if let Some(path) = text.strip_prefix("unix:") {
        path
    } else if text.contains("://") {
        return Err(EndpointError::Scheme(text.to_owned()));
    } else {
        text
    };
    if path.is_empty() || path.ends_with('/') {
        return Err(EndpointError::Empty(text.to_owned()));
    }
    if path.contains('\0') {
        return Err(EndpointError::Nul(text.to_owned()));
    }
    if path.len() > LONGEST {
        return Err(EndpointError::Long(path.to_owned()));
    }
    Ok(Path::new(path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_name_one_socket() {
        for text in [
            "unix:///csi/csi.sock",
            "unix:/csi/csi.sock",
            "/csi/csi.sock",
        ] {
            assert_eq!(parse(text), Ok(PathBuf::from("/csi/csi.sock")), "{text}");
        }
        assert_eq!(parse("unix:csi.sock"), Ok(PathBuf::from("csi.sock")));
    }

    #[test]
    fn what_is_no_socket_is_refused() {
        for text in ["", "unix:", "unix://", "unix:///", "/csi/"] {
            assert_eq!(parse(text), Err(EndpointError::Empty(text.into())));
        }
        for text in ["tcp://127.0.0.1:9000", "http://x"] {
            assert_eq!(parse(text), Err(EndpointError::Scheme(text.into())));
        }
        let text = "unix://csi/csi.sock";
        assert_eq!(parse(text), Err(EndpointError::Host(text.into())));
        assert_eq!(parse("/a\0b"), Err(EndpointError::Nul("/a\0b".into())));

        let long = format!("unix:///{}", "x".repeat(LONGEST));
        let path = long.trim_start_matches("unix://").to_owned();
        assert_eq!(parse(&long), Err(EndpointError::Long(path)));
        assert!(
            parse(&long[..long.len() - 1]).is_ok(),
            "107 bytes are still good"
        );
    }
}
