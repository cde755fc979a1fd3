//! A port that hands everything on, and remembers who came.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

/// One that connected.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// When.
    pub at: Instant,
    /// The first byte it sent, if it sent one: 22 begins a TLS handshake, 0 a request of Kafka's in the open.
    pub first: Option<u8>,
}

/// Ends with its listener when dropped; connections that are open end with either side.
pub struct Tap {
    address: SocketAddr,
    callers: Arc<Mutex<Vec<Caller>>>,
    stop: Arc<AtomicBool>,
}

impl Tap {
    /// A free loopback port before `upstream`, which need not listen yet.
    pub fn start(upstream: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot bind a port")?;
        let address = listener.local_addr().context("a socket without address")?;
        let (callers, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (kept, stopped) = (Arc::clone(&callers), Arc::clone(&stop));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (at, kept) = (Instant::now(), Arc::clone(&kept));
                thread::spawn(move || {
                    let first = first_byte(&client);
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(Caller { at, first });
                    // Either side's end ends both.
                    let _ = hand_on(&client, upstream);
                });
            }
        });
        Ok(Self { address, callers, stop })
    }

    /// `127.0.0.1:port`
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// All that have connected so far.
    pub fn callers(&self) -> Vec<Caller> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It waits for somebody to come; where nobody can, it has ended.
        let _ = TcpStream::connect(self.address);
    }
}

fn first_byte(client: &TcpStream) -> Option<u8> {
    client.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut byte = [0];
    let read = client.peek(&mut byte).ok()?;
    client.set_read_timeout(None).ok()?;
    (read > 0).then_some(byte[0])
}

fn hand_on(client: &TcpStream, upstream: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(upstream)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let up = thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    let _ = io::copy(&mut from, &mut to);
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
    let _ = up.join();
    Ok(())
}
