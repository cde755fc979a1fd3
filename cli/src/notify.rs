//! `waybill notify`: the mails that customers get.

use crate::config::Config;
use crate::exit::Ended;
use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use std::path::PathBuf;
use waybill_mail::{Composer, Content, Draft, Mailbox, Templates};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a mail with example data, from the built-in templates or a shop's own; nothing is sent
    Preview(Preview),
}

/// Which mail, and how to show it.
#[derive(Debug, ClapArgs)]
pub struct Preview {
    /// The mail
    #[arg(value_parser = names())]
    template: String,
    /// The subject and the plain text, the HTML alone, or the whole mail as it would be sent
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Folder with a shop's own templates [default: mail.templates]
    #[arg(long, value_name = "DIR")]
    templates: Option<PathBuf>,
    /// Write to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Html,
    Eml,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(Content::examples().map(|example| example.template()))
}

/// Runs the command.
pub fn notify(config: &Config, command: &Command) -> anyhow::Result<Ended> {
    let Command::Preview(preview) = command;
    let folder = preview.templates.as_deref().or(config.mail.templates.as_deref());
    let templates = Templates::load(folder)?;
    let example = Content::examples().into_iter().find(|example| example.template() == preview.template);
    let example = example.context("no such mail")?;
    let texts = templates.render(&example)?;
    let shown = match preview.format {
        Format::Text => format!("Subject: {}\n\n{}\n", texts.subject, texts.text).into_bytes(),
        Format::Html => format!("{}\n", texts.html).into_bytes(),
        Format::Eml => {
            let mut settings = config.mail.clone();
            if settings.from.is_empty() {
                settings.from = "Example Shop <shop@shop.example>".to_owned();
            }
            let to: Mailbox = "Ada Lovelace <ada@customer.example>".parse()?;
            let unsubscribe = example.unsubscribe_url().map(str::parse).transpose()?;
            let date = waybill_spine::system_clock();
            let draft = Draft { delivery: "preview", to: &to, date, unsubscribe: unsubscribe.as_ref(), texts };
            Composer::new(&settings).context("mail")?.compose(draft)?.bytes().to_vec()
        }
    };
    match &preview.to {
        Some(file) => std::fs::write(file, shown).with_context(|| format!("cannot write {}", file.display()))?,
        None => std::io::Write::write_all(&mut std::io::stdout(), &shown)?,
    }
    Ok(Ended::Done)
}
