//! Ports for servers that must know theirs before they start.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::Context;

/// Below the range from which the kernel takes the ports of outgoing connections: one of those cannot slip in
/// between this check and the server's own bind.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A loopback port that nothing listens on.
pub fn free_port() -> anyhow::Result<u16> {
    (0..100)
        .map(|_| rand::random_range(RANGE))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .context("no free loopback port")
}
