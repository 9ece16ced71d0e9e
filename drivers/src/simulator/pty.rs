//! A pseudo-terminal: the instrument's end of a serial cable, with a path for the gateway's end.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::ttyname;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// The instrument's end. Dropping it is pulling the cable. Bytes travel at once: a pty has no speed.
#[derive(Debug)]
pub struct Pty {
    master: AsyncFd<OwnedFd>,
    /// Kept open so that a gateway may come and go.
    _slave: OwnedFd,
    path: PathBuf,
}

impl Pty {
    /// A new pair, in raw mode: nothing echoes before a gateway opens it. Must be called inside a runtime.
    pub fn open() -> io::Result<Self> {
        let pair = openpty(None, None)?;
        let mut raw = tcgetattr(&pair.slave)?;
        cfmakeraw(&mut raw);
        tcsetattr(&pair.slave, SetArg::TCSANOW, &raw)?;
        let path = ttyname(&pair.slave)?;
        nix::fcntl::fcntl(&pair.master, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        Ok(Self { master: sys::register(pair.master)?, _slave: pair.slave, path })
    }

    /// The gateway's end, such as `/dev/pts/7`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for bytes from the gateway; returns how many, at least one. Cancel-safe.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.master.readable().await?;
            if let Ok(read) = ready.try_io(|master| Ok(nix::unistd::read(master.get_ref(), buffer)?)) {
                return read;
            }
        }
    }

    /// Sends bytes to the gateway. If nobody reads there and the cable is full, the rest is lost, as on a wire.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match nix::unistd::write(self.master.get_ref(), bytes) {
            Ok(_) | Err(nix::errno::Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
