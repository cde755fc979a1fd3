//! What processes have used so far, as Linux counts it.

use anyhow::Context;
use std::fs::read_to_string;

/// Seconds of CPU, user and system, of a process and of the children it has waited for.
pub fn cpu(pid: u32) -> anyhow::Result<f64> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} has ended"))?;
    Ok(seconds(&stat))
}

/// Seconds of CPU of a process and of all its children, those that have ended among them.
pub fn cpu_of_family(pid: u32) -> anyhow::Result<f64> {
    let mut sum = cpu(pid)?;
    for entry in std::fs::read_dir("/proc")? {
        // A process may end while we look.
        let Ok(stat) = read_to_string(entry?.path().join("stat")) else { continue };
        if fields(&stat).nth(1) == Some(pid.to_string().as_str()) {
            sum += seconds(&stat);
        }
    }
    Ok(sum)
}

/// Most memory a process has had resident so far, MiB.
pub fn peak_rss(pid: u32) -> anyhow::Result<f64> {
    let status = read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} has ended"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no peak")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// Seconds of CPU that all processes of the machine have used together.
pub fn machine() -> anyhow::Result<f64> {
    let stat = read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("no first line")?;
    let times: Vec<f64> = line.split_whitespace().skip(1).filter_map(|t| t.parse().ok()).collect();
    // user, nice, system, (idle, iowait,) irq, softirq
    let busy: f64 = [0, 1, 2, 5, 6].iter().filter_map(|i| times.get(*i)).sum();
    Ok(busy / per_second())
}

/// The fields after the name, which may hold anything; its closing bracket is the last one.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

/// utime, stime, cutime, cstime.
fn seconds(stat: &str) -> f64 {
    let times = fields(stat).skip(11).take(4);
    times.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / per_second()
}

fn per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}
