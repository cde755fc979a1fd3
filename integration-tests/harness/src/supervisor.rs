//! A server below a small shell that outlives us by a moment.
//!
//! Statics are never dropped and a killed process runs no destructor, so cleaning up cannot be our own work.
//! The shell's standard input is a pipe that we hold: however we end, the kernel closes it, `read` returns,
//! and the shell stops the server and removes its directory.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};

/// `$1` the directory, `$2` the signal that ends the server, the rest its command.
///
/// The signal goes to the server alone and is repeated until it is gone: one that arrives before the server has its
/// handlers is lost (`sh` starts `&` with QUIT ignored). What else is in its group is killed then and not waited
/// for: orphans are init's to reap, and some inits take their time.
/// PIPE has a handler because the shell must outlive us: nobody may be there to hear its answer.
const SCRIPT: &str = r#"
dir=$1 signal=$2 server=
shift 2
trap : PIPE
end() {
  while kill -s "$1" "$server"; do sleep 0.05; done
  wait "$server"
  kill -s KILL -- "-$server"
  server=
}
mkdir -m 700 -- "$dir" && cd -- "$dir" || exit 1
echo ready
while read -r order; do
  case $order in
    start) setsid -- "$@" </dev/null >>log 2>&1 & server=$!; echo "$server" ;;
    *) end "$order"; echo ended ;;
  esac
done
[ -z "$server" ] || { kill -s CONT "$server"; end "$signal"; }
cd /
rm -rf -- "$dir" || { sleep 0.5; rm -rf -- "$dir"; }
"#;

/// How long a log may be in an error.
const TAIL: usize = 2_000;

pub(crate) struct Supervisor {
    shell: Child,
    // An option only so that Drop can close it.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    dir: PathBuf,
    server: u32,
}

impl Supervisor {
    /// A new directory, and a shell that will run `command` in it when told to; `signal` ends it for good.
    pub(crate) fn new(name: &str, signal: &str, command: &[&str]) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("waybill-{name}-{:08x}", rand::random::<u32>()));
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(&dir)
            .arg(signal)
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C at a terminal goes to the whole foreground group: the shell must live to clean up.
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        let orders = shell.stdin.take();
        let answers = BufReader::new(shell.stdout.take().context("sh has no output")?);
        let mut supervisor = Self { shell, orders, answers, dir, server: 0 };
        let answer = supervisor.answer()?;
        ensure!(answer == "ready", "cannot make {}", supervisor.dir.display());
        Ok(supervisor)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The server's process id, as of the last start.
    pub(crate) fn server(&self) -> u32 {
        self.server
    }

    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        self.server = self.order("start")?.parse().context("sh did not answer with a process id")?;
        Ok(())
    }

    /// Sends the server `signal` and waits until it is gone. Its directory stays.
    pub(crate) fn end(&mut self, signal: &str) -> anyhow::Result<()> {
        let answer = self.order(signal)?;
        ensure!(answer == "ended", "sh answered {answer:?}");
        Ok(())
    }

    /// Whether the server still runs; where there is no `/proc`, it is believed to.
    pub(crate) fn is_alive(&self) -> bool {
        if !Path::new("/proc/self/stat").exists() {
            return true;
        }
        // "pid (name) state …"; the name may hold anything, its closing bracket is the last one.
        // A dead server stays a zombie until the shell waits for it.
        std::fs::read_to_string(format!("/proc/{}/stat", self.server))
            .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with(['Z', 'X'])))
    }

    /// The end of what the server printed.
    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read(self.dir.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(TAIL)..]).into_owned()
    }

    fn order(&mut self, order: &str) -> anyhow::Result<String> {
        let orders = self.orders.as_mut().context("sh was told to end")?;
        writeln!(orders, "{order}").context("sh is gone")?;
        self.answer()
    }

    fn answer(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("sh is gone")?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.orders.take());
        // An error would only say that there is nothing left to wait for.
        let _ = self.shell.wait();
    }
}
