//! A real Postgres: the one named by `WAYBILL_TEST_POSTGRES`, or one of our own.

mod tls;

pub use tls::Entrance;

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::database::{Database, connect, create_database};
use crate::port::free_port;
use crate::supervisor::Supervisor;
use crate::unavailable::{say, unavailable};

const VARIABLE: &str = "WAYBILL_TEST_POSTGRES";

/// A start takes about a second; this is for a machine that is busy with everything else.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Postgres refuses to run as root; this is `nobody` on every distribution.
const NOBODY: u32 = 65_534;

/// `$1` the folder of the programs, `$2` the port.
/// New data needs no sync: nobody misses it after a power cut. The server itself keeps fsync on.
const SCRIPT: &str = r#"
set -e
[ -e data/PG_VERSION ] || "$1/initdb" -D data -U postgres -E UTF8 --locale=C -A scram-sha-256 --pwfile=password --no-sync
exec "$1/postgres" -D data -p "$2" -c listen_addresses=127.0.0.1 -c unix_socket_directories="$PWD" -c max_connections=200
"#;

/// The server that all tests of this process share.
pub struct Postgres {
    admin: String,
    // Held, not used: it stops when this process ends.
    _server: Option<PostgresServer>,
}

impl Postgres {
    /// A new, empty database; its name tells the test's from a person's.
    pub async fn create_database(&self, name_hint: &str) -> anyhow::Result<Database> {
        create_database(&self.admin, name_hint).await
    }

    fn find() -> anyhow::Result<Self> {
        if let Ok(admin) = std::env::var(VARIABLE) {
            say(&format!("test Postgres: from {VARIABLE}"));
            return Ok(Self { admin, _server: None });
        }
        let began = Instant::now();
        let server = PostgresServer::start()?;
        say(&format!("test Postgres: port {}, started in {:.1?}", server.port, began.elapsed()));
        Ok(Self { admin: server.admin.clone(), _server: Some(server) })
    }
}

/// The shared server, started on first use; `None`, and a line on standard error, where none can be had.
///
/// # Panics
/// Instead of `None`, under `CI=true`.
pub fn postgres() -> Option<&'static Postgres> {
    static POSTGRES: OnceLock<anyhow::Result<Postgres>> = OnceLock::new();
    match POSTGRES.get_or_init(Postgres::find) {
        Ok(postgres) => Some(postgres),
        Err(error) => {
            unavailable(
                &format!(
                    "no Postgres for this test ({error:#}); run `docker compose up -d kafka postgres` and set \
                     {VARIABLE}=postgres://waybill:waybill@127.0.0.1:5432/waybill, or install PostgreSQL 14 or newer"
                ),
                false,
            );
            None
        }
    }
}

/// A server that one test owns and may stop; it ends and its data goes when this is dropped.
pub struct PostgresServer {
    supervisor: Supervisor,
    port: u16,
    admin: String,
}

impl PostgresServer {
    /// Returns when the server takes connections.
    pub fn start() -> anyhow::Result<Self> {
        let programs = programs()?;
        let programs = programs.to_str().context("a path that is not UTF-8")?;
        let port = free_port()?;
        let port_text = port.to_string();
        let (user, group) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
        let root = rustix::process::geteuid().is_root();
        let mut command = match root {
            true => vec!["setpriv", &user, &group, "--clear-groups"],
            false => vec![],
        };
        command.extend(["sh", "-c", SCRIPT, "sh", programs, &port_text]);

        // The immediate shutdown: it leaves no shared memory behind, as a kill would.
        let supervisor = Supervisor::new("postgres", "QUIT", &command)?;
        // A password, because a superuser may run programs and the port is open to every user of the machine.
        let password = format!("{:032x}", rand::random::<u128>());
        let file = supervisor.dir().join("password");
        std::fs::write(&file, &password).context("cannot write the password file")?;
        if root {
            for path in [supervisor.dir(), &file] {
                chown(path, Some(NOBODY), Some(NOBODY)).context("cannot give up the folder")?;
            }
        }
        let mut server =
            Self { supervisor, port, admin: format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres") };
        server.start_again()?;
        Ok(server)
    }

    /// A new, empty database on this server.
    pub async fn create_database(&self, name_hint: &str) -> anyhow::Result<Database> {
        create_database(&self.admin, name_hint).await
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.supervisor.server()
    }

    /// A program that comes with the server, `pgbench` for one.
    pub fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let programs = programs()?;
        ensure!(has(&programs, name), "{name} is not in {}: install the server's own packages", programs.display());
        Ok(programs.join(name))
    }

    /// Ends the server at once, as a crash would: the next start recovers from its log.
    pub fn stop_immediate(&mut self) -> anyhow::Result<()> {
        self.supervisor.end("QUIT")
    }

    /// Puts a base backup in the place of the stopped server's data, and log files that the next start plays over it.
    pub fn restore(&mut self, backup: &Path, log: &Path) -> anyhow::Result<()> {
        let data = self.supervisor.dir().join("data");
        std::fs::remove_dir_all(&data).with_context(|| data.display().to_string())?;
        done(Command::new("cp").arg("-a").args([backup, &data]))?;
        for entry in std::fs::read_dir(log).with_context(|| log.display().to_string())? {
            let entry = entry?;
            // The last one is not full.
            let name = entry.file_name().to_string_lossy().trim_end_matches(".partial").to_owned();
            std::fs::copy(entry.path(), data.join("pg_wal").join(name))?;
        }
        match rustix::process::geteuid().is_root() {
            true => done(Command::new("chown").arg("-R").arg(format!("{NOBODY}:{NOBODY}")).arg(&data)),
            false => Ok(()),
        }
    }

    /// Starts the stopped server on its port and its data; returns when it takes connections.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.supervisor.start()?;
        let deadline = Instant::now() + START_LIMIT;
        while !self.is_ready() {
            ensure!(
                self.supervisor.is_alive() && Instant::now() < deadline,
                "Postgres did not start: {}",
                self.supervisor.log_tail()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Cuts every client's connection; the server goes on. Returns how many there were.
    pub async fn terminate_connections(&self) -> anyhow::Result<i64> {
        let mut connection = connect(&self.admin).await?;
        sqlx::query_scalar(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where backend_type = 'client backend' and pid <> pg_backend_pid()",
        )
        .fetch_one(&mut connection)
        .await
        .context("cannot terminate the connections")
    }

    /// As `pg_ctl` knows it: line 1 of the pid file is this server, line 8 its state.
    fn is_ready(&self) -> bool {
        let file = self.supervisor.dir().join("data/postmaster.pid");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.first() == Some(&self.pid().to_string().as_str()) && lines.get(7) == Some(&"ready")
    }
}

fn done(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The newest of Debian's folders, else where `PATH` has `initdb`.
fn programs() -> anyhow::Result<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry)))
        .max_by_key(|(version, _)| *version)
        .map(|(_, entry)| entry.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    debian
        .into_iter()
        .chain(std::env::split_paths(&path))
        .find(|folder| has(folder, "initdb") && has(folder, "postgres"))
        .context("initdb and postgres are neither below /usr/lib/postgresql nor on the PATH")
}

fn has(folder: &Path, program: &str) -> bool {
    folder.join(program).is_file()
}
