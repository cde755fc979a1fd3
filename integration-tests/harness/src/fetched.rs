//! Other people's programs, fetched once and kept in cargo's target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// The folder `lib` of `name` in the target folder; where it is not there, `fetch` is given the folder of `name` and
/// a folder to fill. One process fetches, the others wait for it.
pub(crate) fn fetched(name: &str, fetch: impl FnOnce(&Path, &Path) -> anyhow::Result<()>) -> anyhow::Result<PathBuf> {
    let home = target().join(name);
    let lib = home.join("lib");
    if lib.exists() {
        return Ok(lib);
    }
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let lock = File::create(home.join("lock")).context("cannot make the lock file")?;
    lock.lock().with_context(|| format!("cannot lock {}", home.display()))?;
    if !lib.exists() {
        // `lib` appears by a rename, so it is whole or not there, even when we are killed half-way.
        let part = home.join("part");
        // What a killed run left; most often there is nothing.
        let _ = fs::remove_dir_all(&part);
        fetch(&home, &part)?;
        fs::rename(&part, &lib).with_context(|| format!("cannot move {name} into place"))?;
    }
    Ok(lib)
}

/// The folder of programs of `name`, a Python environment in the target folder with these packages. One process installs
/// it, the others wait.
pub(crate) fn python(name: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let home = target().join(name);
    // The environment knows its own path, so it cannot be moved into place; this file says that it is whole.
    let (ready, venv) = (home.join("ready"), home.join("venv"));
    let programs = venv.join("bin");
    if !ready.exists() {
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let lock = File::create(home.join("lock")).context("cannot make the lock file")?;
        lock.lock().with_context(|| format!("cannot lock {}", home.display()))?;
        if !ready.exists() {
            run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
            run(Command::new(programs.join("python")).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
            fs::write(&ready, "").context("cannot write a file")?;
        }
    }
    Ok(programs)
}

/// Installs a package of npm and what it needs into `lib`, without running any script of theirs.
pub(crate) fn npm(lib: &Path, package: &str, version: &str) -> anyhow::Result<()> {
    let quiet = ["--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"];
    let package = format!("{package}@{version}");
    run(Command::new("npm").arg("install").args(quiet).arg("--prefix").arg(lib).arg(package))
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let run = command.stdin(Stdio::null()).output().with_context(|| format!("{program} cannot be run"))?;
    ensure!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    Ok(())
}

/// Cargo's target folder, as cargo finds it: a relative one counts from the workspace.
fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace.join(target)
}
