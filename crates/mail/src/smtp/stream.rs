//! A connection that can hold back what is written, so that a mail's text and its final dot leave together: one packet for the
//! server to wake up for, one record of TLS.

use lettre::transport::smtp::client::AsyncTokioStream;
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};

/// What is held back at most; the beginning of a longer text leaves at once.
const MOST: usize = 16 << 10;

/// Decides when what is written leaves. One task uses it, between whose steps the connection is polled.
#[derive(Debug, Default)]
pub(super) struct Hold {
    held: AtomicBool,
    gone: AtomicBool,
}

impl Hold {
    /// From now on what is written waits.
    pub fn back(&self) {
        self.held.store(true, Relaxed);
        self.gone.store(false, Relaxed);
    }

    /// It leaves with what is written next.
    pub fn release(&self) {
        self.held.store(false, Relaxed);
    }

    /// Whether all that was written has been handed over since it was released. If not, its end has not been.
    pub fn gone(&self) -> bool {
        self.gone.load(Relaxed)
    }
}

/// A connection to a mail server. The library takes any that knows its other end. (It would make one of its own as well, but
/// leaves Nagle's algorithm on: the final dot would wait for the acknowledgement of the text, 40 ms a mail.)
#[derive(Debug)]
pub(super) struct Stream<S> {
    stream: BufWriter<S>,
    address: SocketAddr,
    hold: Arc<Hold>,
}

impl<S: AsyncWrite> Stream<S> {
    pub fn new(stream: S, address: SocketAddr, hold: Arc<Hold>) -> Self {
        Stream { stream: BufWriter::with_capacity(MOST, stream), address, hold }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin + Debug> AsyncTokioStream for Stream<S> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hold.held.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.hold.gone.store(true, Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
