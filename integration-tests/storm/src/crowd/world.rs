//! What runs: a gateway, an inventory and a restock detection that nobody kills, and so many of those that are killed.

use super::receivers::{Receivers, TOKEN_OF};
use super::{CHANNELS, Crowd, PRODUCT, ROLES, SEEDS};
use anyhow::{Context, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::process::Command;
use std::time::Duration;
use waybill_harness::{Process, ask, eventually, free_port};

/// How long a start or an end of a process may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Those who subscribe over HTTP; the rest would take the gateway minutes that are not the point here.
const OVER_HTTP: usize = 1_000;
/// Who is told before the crowd, so that all processes are at work: of each channel.
const WARM: usize = 20;
const WARM_PRODUCT: &str = "p-warm";
/// Of an address.
const DOMAIN: &str = "customer.example";

/// Processes and what they stand on.
pub struct World {
    pub crowd: Crowd,
    pub receivers: Receivers,
    pub connection: PgConnection,
    /// Those that are killed: role and process.
    processes: Vec<(&'static str, Process)>,
    /// Those that are not.
    others: Vec<Process>,
    gateway: SocketAddr,
    envs: Vec<(&'static str, String)>,
    /// Most memory that a process of a role has had, KiB; those that were killed among them.
    peaks: BTreeMap<&'static str, u64>,
    // Held, not used.
    _folder: tempfile::TempDir,
}

impl World {
    /// Topics, receivers and all processes, and a few people who were told already.
    pub async fn open(crowd: Crowd) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let receivers = Receivers::start().await?;
        let account = folder.path().join("account.json");
        receivers.write_account(&account)?;
        let gateway = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        // Batches come a little faster than the lanes let them out, so it is the lanes that hold them back.
        let spacing = (80_000.0 / crowd.rate).round();
        let rate = format!("{:?}", crowd.rate);
        let mut envs = vec![
            ("OTEL_SDK_DISABLED", "true".to_owned()),
            ("WAYBILL_HTTP_LISTEN", gateway.to_string()),
            ("WAYBILL_PAGES_LISTEN", String::new()),
            // A dead process's place is taken sooner.
            ("WAYBILL_KAFKA_SESSION_TIMEOUT_MS", "6000".to_owned()),
            ("WAYBILL_FANOUT_FACTOR", "all".to_owned()),
            ("WAYBILL_FANOUT_SPACING", format!("{spacing}ms")),
            ("WAYBILL_RATES_EMAIL", rate.clone()),
            ("WAYBILL_RATES_PUSH", rate),
        ];
        envs.extend(receivers.settings(&account));
        done(&crowd, &["topics", "apply"], &envs)?;
        // The first process makes the tables.
        let mut others = vec![spawn(&crowd, "gateway", &envs)?];
        until_open(gateway).await;
        for role in ["inventory", "restock"] {
            others.push(spawn(&crowd, role, &envs)?);
        }
        let mut processes = Vec::new();
        for role in ROLES {
            for _ in 0..crowd.replicas {
                processes.push((role, spawn(&crowd, role, &envs)?));
            }
        }
        let connection = PgConnection::connect(&crowd.database).await?;
        let peaks = BTreeMap::new();
        let mut world =
            World { crowd, receivers, connection, processes, others, gateway, envs, peaks, _folder: folder };
        world.sell(WARM_PRODUCT).await?;
        world.wait_by_sql(WARM_PRODUCT, [0, 1], 0..WARM).await?;
        world.restock(WARM_PRODUCT)?;
        eventually("a few people are told before the crowd", LIMIT, async || {
            world.check_running().map_err(|error| format!("{error:#}"))?;
            let ended = world.has_ended(WARM_PRODUCT).await.map_err(|error| error.to_string())?;
            let told = world.receivers.count();
            if ended && told == 2 * WARM { Ok(()) } else { Err(format!("{told} messages")) }
        })
        .await;
        Ok(world)
    }

    async fn sell(&mut self, product: &str) -> anyhow::Result<()> {
        self.execute(&format!(
            "insert into products values ('{product}', 'SKU-{product}', 'Reading lamp', 'lamps', 8950, 'EUR', 1, 1, 1, 1)"
        ))
        .await
    }

    /// Everybody subscribes, half of them by mail and half by push: some over HTTP, the others as the gateway writes them.
    pub async fn subscribe(&mut self) -> anyhow::Result<()> {
        self.sell(PRODUCT).await?;
        let half = self.crowd.people / 2;
        let some = half.min(OVER_HTTP / 2);
        for (channel, seed) in CHANNELS.into_iter().zip(SEEDS) {
            let (url, some, seed) = (format!("http://{}", self.gateway), some.to_string(), seed.to_string());
            let who = ["--product", PRODUCT, "--count", &some, "--channel", channel, "--seed", &seed];
            let args = [&["produce", "subscribers", "--url", &url, "--domain", DOMAIN], &who[..]].concat();
            done(&self.crowd, &args, &self.envs)?;
        }
        self.wait_by_sql(PRODUCT, SEEDS, some..half).await?;
        self.execute("analyze").await
    }

    /// People who are called what `waybill produce subscribers` calls them, in turn by mail and by push.
    async fn wait_by_sql(&mut self, product: &str, seeds: [u64; 2], numbers: Range<usize>) -> anyhow::Result<()> {
        let ([email, push], Range { start, end }) = (seeds, numbers);
        self.execute(&format!(
            "insert into contacts (user_id, email, name)
                 select u, u || '@{DOMAIN}', 'Person ' || u
                 from generate_series({start}, {end} - 1) n, lateral (select 'w-{email}-' || n) w (u)
                 on conflict do nothing;
             insert into push_targets (user_id, id, target)
                 select u, 'phone', jsonb_build_object('fcm_token', '{TOKEN_OF}' || u)
                 from generate_series({start}, {end} - 1) n, lateral (select 'w-{push}-' || n) w (u)
                 on conflict do nothing;
             insert into subscriptions (product_id, user_id, channel, expires_at)
                 select '{product}', 'w-' || seed || '-' || n, channel, now() + interval '1 day'
                 from generate_series({start}, {end} - 1) n, (values ({email}, 'email'), ({push}, 'push')) c (seed, channel)
                 order by n"
        ))
        .await
    }

    /// A piece comes back.
    pub fn restock(&self, product: &str) -> anyhow::Result<()> {
        done(&self.crowd, &["produce", "restock", "--product", product, "--quantity", "1"], &self.envs)
    }

    /// Whether the campaign for a product has ended.
    pub async fn has_ended(&mut self, product: &str) -> anyhow::Result<bool> {
        let sql = "select count(*) from campaigns where key like $1 and state #>> '{campaign,doing}' = 'ended'";
        let asked = sqlx::query_scalar(sql).bind(format!("{product}/%"));
        let ended: i64 = asked.fetch_one(&mut self.connection).await?;
        Ok(ended == 1)
    }

    /// Kills a process of a role without a warning and starts another one.
    pub fn kill(&mut self, role: &'static str, rng: &mut StdRng) -> anyhow::Result<()> {
        let of_role: Vec<usize> = (0..self.processes.len()).filter(|i| self.processes[*i].0 == role).collect();
        let index = of_role[rng.random_range(0..of_role.len())];
        self.processes[index].1.kill()?;
        self.processes[index].1 = spawn(&self.crowd, role, &self.envs)?;
        Ok(())
    }

    /// Most memory that a process of each role has had so far, KiB. Nobody ends but who is killed.
    pub fn peaks(&mut self) -> anyhow::Result<BTreeMap<&'static str, u64>> {
        self.check_running()?;
        for (role, process) in &self.processes {
            let peak = self.peaks.entry(role).or_default();
            *peak = process.peak_rss()?.max(*peak);
        }
        Ok(self.peaks.clone())
    }

    fn check_running(&mut self) -> anyhow::Result<()> {
        let of_role = self.processes.iter_mut().map(|(role, process)| (*role, process));
        for (role, process) in of_role.chain(self.others.iter_mut().map(|process| ("another one", process))) {
            let ended = process.ended()?;
            ensure!(ended.is_none(), "{role} ended by itself, {ended:?}: {}", process.log()?);
        }
        Ok(())
    }

    /// Processes end as they are asked to.
    pub async fn close(&mut self) -> anyhow::Result<()> {
        let mut all: Vec<Process> = self.processes.drain(..).map(|(_, process)| process).collect();
        all.append(&mut self.others);
        for process in &mut all {
            process.terminate()?;
        }
        for process in &mut all {
            let status = process.wait(LIMIT).await?;
            ensure!(status.success(), "a process ended with {status}: {}", process.log()?);
        }
        Ok(())
    }

    /// What each process printed last, for whoever finds out why they stand still.
    pub fn dump(&self) {
        for (role, process) in &self.processes {
            let log = process.log().unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(8).collect();
            println!("{role}:");
            tail.iter().rev().for_each(|line| println!("  {line}"));
        }
    }

    async fn execute(&mut self, sql: &str) -> anyhow::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.connection).await?;
        Ok(())
    }
}

async fn until_open(gateway: SocketAddr) {
    eventually("the gateway answers", LIMIT, async || {
        match ask(gateway, "GET", "/api/products/p-none", &[], &Value::Null).await {
            Ok(answer) if answer.status == 404 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

fn spawn(crowd: &Crowd, role: &str, envs: &[(&'static str, String)]) -> anyhow::Result<Process> {
    Process::spawn(&crowd.binary, args(crowd, &["run", role]), envs.to_vec())
}

fn done(crowd: &Crowd, what: &[&str], envs: &[(&'static str, String)]) -> anyhow::Result<()> {
    let output = Command::new(&crowd.binary).args(args(crowd, what)).envs(envs.to_vec()).output();
    let output = output.with_context(|| crowd.binary.display().to_string())?;
    ensure!(output.status.success(), "waybill {what:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn args<'a>(crowd: &'a Crowd, args: &[&'a str]) -> Vec<&'a str> {
    [args, &["--brokers", &crowd.bootstrap, "--prefix", &crowd.prefix, "--database", &crowd.database]].concat()
}
