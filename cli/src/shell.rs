//! `waybill completions` and `waybill man`: what a shell and a reader need, made from the command line itself.

use crate::args;
use crate::exit::Ended;
use anyhow::Context;
use clap::{Args as ClapArgs, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use std::io::Write as _;
use std::path::PathBuf;

/// Of which shell.
#[derive(Debug, ClapArgs)]
pub struct Completions {
    /// The shell, for example as `waybill completions bash > /etc/bash_completion.d/waybill`
    shell: Shell,
}

/// Where to.
#[derive(Debug, ClapArgs)]
pub struct ManArgs {
    /// A folder for one page a command; without it, the first page on standard output
    folder: Option<PathBuf>,
}

/// Runs `waybill completions`.
pub fn completions(args: &Completions) -> anyhow::Result<Ended> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::Args::command(), "waybill", &mut script);
    std::io::stdout().write_all(&script).context("cannot write")?;
    Ok(Ended::Done)
}

/// Runs `waybill man`.
pub fn man(args: &ManArgs) -> anyhow::Result<Ended> {
    let command = args::Args::command().name("waybill");
    match &args.folder {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            clap_mangen::generate_to(command, folder)
                .with_context(|| format!("cannot write to {}", folder.display()))?;
        }
        None => {
            let mut page = Vec::new();
            Man::new(command).render(&mut page).context("cannot write the page")?;
            std::io::stdout().write_all(&page).context("cannot write")?;
        }
    }
    Ok(Ended::Done)
}
