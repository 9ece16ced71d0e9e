//! Opening a serial port, and the byte stream it becomes.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_serial::{ClearBuffer, DataBits, FlowControl, SerialPort as _, SerialStream, StopBits};

use super::fault::{self, PortFault};
use super::holders::{holders, logins};
use super::settings::{Parity, PortSettings};
use crate::sys;

/// An open serial port as a byte stream.
///
/// * `poll_flush` is always ready: a write is done when the kernel has taken the bytes. The time they need on
///   the wire is arithmetic ([`PortSettings::character_time`]).
/// * Reading never yields "no bytes": an adapter that is gone gives an error (`UnexpectedEof`, `EIO`, ...). Drop
///   the port on any error.
#[derive(Debug)]
pub struct SerialPort {
    inner: SerialStream,
}

impl SerialPort {
    /// Opens the port with an exclusive lock and sets it. Bytes that waited in the kernel are thrown away.
    /// Must be called inside a runtime.
    pub fn open(settings: &PortSettings) -> Result<Self, PortFault> {
        let path = Path::new(&settings.path);
        let builder = tokio_serial::new(settings.path.as_str(), settings.speed)
            .data_bits(if settings.format.data_bits == 7 { DataBits::Seven } else { DataBits::Eight })
            .parity(match settings.format.parity {
                Parity::None => tokio_serial::Parity::None,
                Parity::Even => tokio_serial::Parity::Even,
                Parity::Odd => tokio_serial::Parity::Odd,
            })
            .stop_bits(if settings.format.stop_bits == 2 { StopBits::Two } else { StopBits::One })
            .flow_control(FlowControl::None);
        let inner = SerialStream::open(&builder).map_err(|error| in_words(settings, path, &error))?;
        let login = logins(path);
        if !login.is_empty() {
            return Err(fault::busy(path, &login));
        }
        if let Some(rs485) = settings.rs485 {
            sys::set_rs485(&inner, rs485.before, rs485.after).map_err(|error| {
                PortFault::refused(
                    format!("the driver of {} cannot turn an RS-485 line ({})", settings.path, error.desc()),
                    "remove `rs485 = \"kernel\"`: most USB adapters turn the line by themselves".into(),
                )
            })?;
        }
        if settings.low_latency
            && let Err(error) = sys::set_low_latency(&inner)
        {
            // The port works all the same, only slower.
            tracing::warn!(port = %settings.path, %error, "port has no low-latency mode; remove low_latency");
        }
        let port = Self { inner };
        port.clear_input();
        Ok(port)
    }

    /// Throws away what the kernel has received and nobody has read. A port that is gone says so at the next
    /// read, so a failure here is not reported.
    pub fn clear_input(&self) {
        let _gone_is_seen_by_read = self.inner.clear(ClearBuffer::Input);
    }
}

impl From<SerialStream> for SerialPort {
    /// A stream opened elsewhere, such as one end of a pseudo-terminal pair.
    fn from(inner: SerialStream) -> Self {
        Self { inner }
    }
}

/// The library's one error covers several causes: ask the system which one it is.
fn in_words(settings: &PortSettings, path: &Path, error: &tokio_serial::Error) -> PortFault {
    if let Err(fault) = fault::examine(path) {
        return fault;
    }
    let others = holders(path);
    let locked = matches!(error.kind(), tokio_serial::ErrorKind::NoDevice);
    if locked || !others.is_empty() {
        return fault::busy(path, &others);
    }
    PortFault::refused(
        format!("{} refuses {} baud {} ({error})", settings.path, settings.speed, settings.format),
        "choose a speed and format that this adapter can do".into(),
    )
}

impl AsyncRead for SerialPort {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let wanted = buf.remaining() > 0;
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) if wanted && buf.filled().len() == before => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the serial port is gone")))
            }
            other => other,
        }
    }
}

impl AsyncWrite for SerialPort {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
