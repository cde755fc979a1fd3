//! Servers that are no use: what a client must survive.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context;
use tokio::net::TcpSocket;

/// Takes connections and whatever is sent, and never answers.
pub struct BlackHole {
    address: SocketAddr,
    // The kernel completes the handshakes of a listening socket and fills its buffers; nobody accepts.
    _listener: TcpListener,
}

impl BlackHole {
    /// On a free loopback port.
    pub fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot bind a port")?;
        let address = listener.local_addr().context("a socket without address")?;
        Ok(Self { address, _listener: listener })
    }

    /// `http://127.0.0.1:port`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A port that refuses connections for as long as this lives.
pub struct Refusing {
    address: SocketAddr,
    // Bound but not listening: connections are refused, and nobody else can take the port.
    _socket: TcpSocket,
}

impl Refusing {
    /// On a free loopback port.
    pub fn start() -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4().context("cannot make a socket")?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).context("cannot bind a port")?;
        let address = socket.local_addr().context("a socket without address")?;
        Ok(Self { address, _socket: socket })
    }

    /// `http://127.0.0.1:port`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where nothing listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
