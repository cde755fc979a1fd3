//! A way to Postgres on which the answer to a commit is lost: it was done, and its client cannot know.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A commit, as a simple query of Postgres' protocol ends.
const COMMIT: &[u8] = b"commit\0";

/// Passes on all that comes, on a loopback port, until it is dropped.
pub struct LostCommit {
    address: SocketAddr,
    armed: Arc<AtomicBool>,
    serving: JoinHandle<()>,
}

impl LostCommit {
    /// On the way to `server`. Once armed, the next connection that sends `statement` for the first time is cut when the
    /// server has answered its commit.
    pub async fn on_the_way_to(server: SocketAddr, statement: &'static str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot bind a port")?;
        let address = listener.local_addr().context("a socket without address")?;
        let armed = Arc::new(AtomicBool::new(false));
        let theirs = armed.clone();
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let armed = theirs.clone();
                tokio::spawn(async move {
                    // An end of either side is the end of the connection.
                    if let Ok(server) = TcpStream::connect(server).await {
                        let _ = pass_on(client, server, statement.as_bytes(), &armed).await;
                    }
                });
            }
        });
        Ok(Self { address, armed, serving })
    }

    /// Where to connect instead of to the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next one is lost.
    pub fn arm(&self) {
        self.armed.store(true, SeqCst);
    }

    /// Whether it was lost.
    pub fn struck(&self) -> bool {
        !self.armed.load(SeqCst)
    }
}

impl Drop for LostCommit {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass_on(
    mut client: TcpStream,
    mut server: TcpStream,
    statement: &[u8],
    armed: &AtomicBool,
) -> std::io::Result<()> {
    let (mut up, mut down, mut sent) = (vec![0; 65_536], vec![0; 65_536], Vec::new());
    loop {
        tokio::select! {
            length = client.read(&mut up) => {
                let part = &up[..length?];
                if part.is_empty() {
                    return Ok(());
                }
                server.write_all(part).await?;
                sent.extend_from_slice(part);
                let said = sent.windows(statement.len()).any(|window| window == statement);
                if said && sent.ends_with(COMMIT) && armed.load(SeqCst) {
                    // The server has done it when it answers.
                    if server.read(&mut down).await? > 0 {
                        armed.store(false, SeqCst);
                    }
                    return Ok(());
                }
                if sent.ends_with(COMMIT) {
                    sent.clear();
                }
            }
            length = server.read(&mut down) => {
                let part = &down[..length?];
                if part.is_empty() {
                    return Ok(());
                }
                client.write_all(part).await?;
            }
        }
    }
}
