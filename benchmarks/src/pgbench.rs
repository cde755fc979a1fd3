//! The peer of the checkout: pgbench, with the same reservation statements on the same server.

use crate::shop::{self, PRODUCTS};
use crate::world::World;
use anyhow::{Context, ensure};
use std::process::Command;
use waybill_harness::Database;

/// Clients that are tried; the best counts.
const CLIENTS: [u32; 3] = [1, 8, 32];

/// What a client does, one transaction a reservation.
#[derive(Clone, Copy, Debug)]
pub enum Script {
    /// The ledger's own statements.
    Reserve,
    /// The least that a reservation can be: one statement.
    Least,
}

impl Script {
    fn text(self) -> &'static str {
        match self {
            Script::Reserve => include_str!("../pgbench/reserve.sql"),
            Script::Least => include_str!("../pgbench/least.sql"),
        }
    }
}

/// Which products are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goods {
    /// All of them, at random.
    Distinct,
    /// One.
    Hot,
}

/// A database with the shop's tables and stock.
pub struct Peer(Database);

impl Peer {
    pub async fn open(world: &World) -> anyhow::Result<Self> {
        let work = world.work("pgbench").await?;
        shop::stock(work.database.url()).await?;
        Ok(Peer(work.database))
    }

    /// Reservations a second: the best of the numbers of clients, and how many they were.
    pub fn reserve(&self, world: &World, script: Script, goods: Goods, seconds: u64) -> anyhow::Result<(f64, u32)> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), script.text())?;
        // What sqlx adds to a URL is not for libpq.
        let url = self.0.url().split('?').next().unwrap_or_default();
        let products = if goods == Goods::Hot { 1 } else { PRODUCTS };
        let mut best = (0.0, 0);
        for clients in CLIENTS {
            let output = Command::new(world.postgres.program("pgbench")?)
                .args(["--no-vacuum", "--protocol=prepared", "--jobs=1"])
                .args([
                    format!("--client={clients}"),
                    format!("--time={seconds}"),
                    format!("--define=products={products}"),
                ])
                .arg("--file")
                .args([file.path().as_os_str(), url.as_ref()])
                .output()
                .context("cannot start pgbench")?;
            let said = String::from_utf8_lossy(&output.stdout);
            ensure!(output.status.success(), "pgbench: {said}{}", String::from_utf8_lossy(&output.stderr));
            // A machine so busy that so many clients did not even connect in time: another number of them counts.
            let tps = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
            let tps: f64 = tps.unwrap_or(0.0);
            if tps > best.0 {
                best = (tps, clients);
            }
        }
        ensure!(best.1 > 0, "pgbench made no transaction in {seconds} s: give it more with --pgbench-seconds");
        Ok(best)
    }
}
