//! The API's socket: for its owner alone, never somebody else's, gone when the agent ends.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, chown},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use nix::{
    sys::stat::{Mode, umask},
    unistd::Group,
};

use super::is_answered;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("{}: an agent serves it already", .0.display())]
    InUse(PathBuf),
    /// There is something else.
    #[error("{}: there is a file that is not a socket", .0.display())]
    NotSocket(PathBuf),
    /// Anything else.
    #[error("{}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A bound socket; its file goes when this is dropped.
pub struct Socket {
    path: PathBuf,
}

impl Socket {
    /// Binds a socket with mode 0600, or 0660 for a group, in the place of one that nobody serves any more.
    pub fn bind(path: &Path, group: Option<&str>) -> Result<(Self, UnixListener), SocketError> {
        let failed = |source| SocketError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        if let Ok(there) = fs::symlink_metadata(path) {
            if !there.file_type().is_socket() {
                return Err(SocketError::NotSocket(path.to_owned()));
            }
            if is_answered(path) {
                return Err(SocketError::InUse(path.to_owned()));
            }
            fs::remove_file(path).map_err(failed)?;
        }
        // The mode must be right from the first moment, not only after a chmod.
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(path);
        umask(before);
        let listener = bound.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let group = group.map(Group::from_name).transpose();
        let group = group.map_err(io::Error::from).map_err(failed)?.flatten();
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        chown(path, None, group.map(|group| group.gid.as_raw())).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        let socket = Self {
            path: path.to_owned(),
        };
        Ok((socket, listener))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It may have been removed by hand.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_served_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/agent.sock");
        let (socket, listener) = Socket::bind(&path, None).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(
            Socket::bind(&path, None),
            Err(SocketError::InUse(_))
        ));
        drop(listener);
        std::mem::forget(socket);
        let (socket, _listener) = Socket::bind(&path, None).unwrap();
        drop(socket);
        assert!(!path.exists());
        let (socket, _listener) = Socket::bind(&path, Some("root")).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        drop(socket);
        fs::write(&path, "precious").unwrap();
        assert!(matches!(
            Socket::bind(&path, None),
            Err(SocketError::NotSocket(_))
        ));
    }
}
