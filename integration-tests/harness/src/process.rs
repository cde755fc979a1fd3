//! A program under test, as a process of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::time::{Instant, sleep};

/// Kills the group `$1` when the pipe on its standard input closes, as it does however the test process ends.
const GUARD: &str = r#"read -r _; kill -s KILL -- "-$1""#;

/// How much of a log goes into a failed test's output.
const TAIL: usize = 8_000;

/// A running program; killed, with whatever it has started, when this is dropped or the test process ends in any way.
pub struct Process {
    child: Child,
    guard: Child,
    status: Option<ExitStatus>,
    // Without a name from the start, so nothing is left on the disk.
    log: File,
}

/// What a process takes of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Memory resident, KiB.
    pub rss: u64,
    /// Open file descriptors.
    pub files: u64,
    /// Threads.
    pub threads: u64,
}

/// What the process with this id takes of the machine now.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let status = status(pid)?;
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).context("the process is gone")?.count() as u64;
    Ok(Usage { rss: number(&status, "VmRSS:")?, files, threads: number(&status, "Threads:")? })
}

fn status(pid: u32) -> anyhow::Result<String> {
    std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")
}

fn number(status: &str, key: &str) -> anyhow::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)).context("the process has ended")?;
    line.split_whitespace().next().and_then(|text| text.parse().ok()).context("no number")
}

impl Process {
    /// Starts `program`; what it prints is kept for [`Process::log`].
    pub fn spawn<A, K, V>(
        program: &Path,
        args: impl IntoIterator<Item = A>,
        envs: impl IntoIterator<Item = (K, V)>,
    ) -> anyhow::Result<Self>
    where
        A: AsRef<OsStr>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        let log = tempfile::tempfile().context("cannot make a log file")?;
        let mut child = Command::new(program)
            .args(args)
            .envs(envs)
            .stdin(Stdio::null())
            .process_group(0)
            .stdout(log.try_clone().context("cannot share the log file")?)
            .stderr(log.try_clone().context("cannot share the log file")?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let guard = Command::new("sh")
            .args(["-c", GUARD, "sh", &child.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let guard = match guard {
            Ok(guard) => guard,
            Err(error) => {
                child.kill().and_then(|()| child.wait())?;
                return Err(error).context("cannot start sh");
            }
        };
        Ok(Self { child, guard, status: None, log })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Most memory it has had resident so far, KiB.
    pub fn peak_rss(&self) -> anyhow::Result<u64> {
        number(&status(self.pid())?, "VmHWM:")
    }

    /// SIGKILL: it ends without a chance to do anything.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)
    }

    /// SIGTERM: it is asked to end.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGSTOP: it stands still until [`Process::cont`], as in a long pause of its machine.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: it goes on.
    pub fn cont(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// How it ended, or nothing while it runs.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait().context("cannot wait for a child")?;
        }
        Ok(self.status)
    }

    /// Waits for its end; an error, with what it printed last, where it still runs after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("still runs after {limit:?}: {}", self.log_tail());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// All it has printed so far, standard output and standard error as they came.
    pub fn log(&self) -> anyhow::Result<String> {
        // By position: the file's own position is shared with the child, which appends there.
        let length = self.log.metadata().context("no log file")?.len();
        let mut bytes = vec![0; usize::try_from(length).context("a huge log")?];
        self.log.read_exact_at(&mut bytes, 0).context("cannot read the log file")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn log_tail(&self) -> String {
        let log = self.log().unwrap_or_default();
        log[log.floor_char_boundary(log.len().saturating_sub(TAIL))..].to_owned()
    }

    /// A process that has ended is sent nothing: its id may be another's by now.
    fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if self.ended()?.is_some() {
            bail!("the process has ended: {}", self.log_tail());
        }
        kill_process(self.id().context("no process id")?, signal).context("cannot send a signal")
    }

    fn id(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Each of these fails only where there is nothing left to end. The guard goes while the child is not
        // yet reaped and its id is still its own.
        let _ = self.id().map(|group| kill_process_group(group, Signal::KILL));
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- process {} printed ---\n{}", self.pid(), self.log_tail());
        }
    }
}
