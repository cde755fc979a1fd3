//! Processes end when they are told to, and when the process that started them is killed.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use waybill_harness::{PostgresServer, Process, eventually, postgres};

const LONG: Duration = Duration::from_secs(30);
const NO_ENV: [(&str, &str); 0] = [];

/// Set in the test process that is started to be killed.
const VICTIM: &str = "WAYBILL_HARNESS_VICTIM";

fn sh(script: &str) -> Result<Process> {
    Process::spawn(Path::new("/bin/sh"), ["-c", script], NO_ENV)
}

/// A zombie is dead: nobody may be there to wait for it.
fn is_gone(pid: &str) -> Result<(), String> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) if !stat.contains(") Z ") => Err(stat),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn a_process_ends_as_it_is_told() -> Result<()> {
    let mut polite = sh("trap 'echo bye >&2; exit 3' TERM; echo up; while :; do sleep 0.05; done")?;
    eventually("it is up", LONG, async || match polite.log() {
        Ok(log) if log == "up\n" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    polite.terminate()?;
    assert_eq!(polite.wait(LONG).await?.code(), Some(3));
    assert_eq!(polite.log()?, "up\nbye\n");
    assert!(polite.kill().is_err(), "it has ended");

    let mut killed = sh("exec sleep 600")?;
    assert!(killed.wait(Duration::ZERO).await.is_err());
    killed.stop()?;
    killed.kill()?;
    assert_eq!(killed.wait(LONG).await?.signal(), Some(9));
    Ok(())
}

#[tokio::test]
async fn a_dropped_process_is_gone_with_its_children() -> Result<()> {
    let process = sh("sleep 600 & echo $!; wait")?;
    let child = eventually("it has a child", LONG, async || match process.log() {
        Ok(log) if log.ends_with('\n') => Ok(log.trim().to_owned()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let pid = process.pid().to_string();
    drop(process);
    assert_eq!(is_gone(&pid), Ok(()));
    eventually("the child is gone", LONG, async || is_gone(&child)).await;
    Ok(())
}

#[tokio::test]
async fn a_killed_test_process_leaves_nothing() -> Result<()> {
    if postgres().is_none() {
        return Ok(());
    }
    let temp = tempfile::tempdir()?;
    // The server runs as another user, who must be able to reach it.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(temp.path(), open)?;
    let mut victim = Process::spawn(
        &std::env::current_exe()?,
        ["--exact", "the_victim", "--nocapture"],
        [(VICTIM, "1".as_ref()), ("TMPDIR", temp.path().as_os_str())],
    )?;
    let pids = eventually("the victim has its processes", LONG, async || {
        let log = victim.log().map_err(|error| error.to_string())?;
        let pids = log.lines().find_map(|line| line.split_once("pids: ").map(|(_, pids)| pids.to_owned()));
        pids.ok_or(log)
    })
    .await;
    let folders = || Ok::<_, std::io::Error>(std::fs::read_dir(temp.path())?.count());
    assert_eq!(folders()?, 1);

    victim.kill()?;
    for pid in pids.split(' ') {
        eventually("the process is gone", LONG, async || is_gone(pid)).await;
    }
    eventually("its folder is removed", LONG, async || match folders() {
        Ok(0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    Ok(())
}

/// Not a test but the process that [`a_killed_test_process_leaves_nothing`] kills.
#[tokio::test]
async fn the_victim() -> Result<()> {
    if std::env::var_os(VICTIM).is_none() {
        return Ok(());
    }
    let server = PostgresServer::start()?;
    let mut process = sh("sleep 600 & wait")?;
    println!("pids: {} {}", server.pid(), process.pid());
    process.wait(LONG).await.context("nobody killed us")?;
    Ok(())
}
