//! How a command ends, and its exit code.

use std::process::ExitCode;

/// The exit codes, as `--help` tells them.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  failed; the message says what to do
  2  wrong usage; of `topics plan`: the cluster is not as declared
  3  done in part: what did not go through is listed
  4  not found";

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As asked.
    Done,
    /// What was compared is not the same.
    Differs,
    /// Some of it did not go through.
    InPart,
    /// What was asked for does not exist.
    NotFound,
}

/// Prints an error with its causes, and turns the ending into the exit code.
pub fn report(result: anyhow::Result<Ended>) -> ExitCode {
    match result {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Differs) => ExitCode::from(2),
        Ok(Ended::InPart) => ExitCode::from(3),
        Ok(Ended::NotFound) => ExitCode::from(4),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
