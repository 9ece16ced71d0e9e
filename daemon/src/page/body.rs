//! A response body that a task writes piece by piece. The task waits while the viewer does not read: nothing piles up.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::Frame;
use tokio::sync::mpsc;

struct Pieces(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The writer's end and the body. The body ends when the writer is dropped; the writer is closed when the viewer is
/// gone.
pub(super) fn pieces() -> (mpsc::Sender<Bytes>, Body) {
    let (writer, reader) = mpsc::channel(1);
    (writer, Body::new(Pieces(reader)))
}
