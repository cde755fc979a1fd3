//! Other people's programs, fetched once and kept in cargo's target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;

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

/// Cargo's target folder, as cargo finds it: a relative one counts from the workspace.
pub(crate) fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace.join(target)
}
