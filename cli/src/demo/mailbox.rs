//! A mail server for the demo: takes every mail and puts it into a folder, to be looked at.

use anyhow::Context;
use mailin::{Action, Handler, Response, Session, SessionBuilder, response};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A client that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// What has come.
#[derive(Clone)]
pub struct Mailbox {
    folder: Arc<Path>,
    count: Arc<AtomicU64>,
}

impl Mailbox {
    /// Listens on a free port of loopback, for as long as the process lives. The mails become `0001.eml` and so on.
    ///
    /// # Errors
    /// The folder cannot be made, or no port is free.
    pub fn open(folder: PathBuf) -> anyhow::Result<(Self, SocketAddr)> {
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let mailbox = Mailbox { folder: folder.into(), count: Arc::default() };
        let taker = mailbox.clone();
        std::thread::Builder::new().name("mailbox".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let taker = taker.clone();
                // One connection, one thread: the sender keeps a few.
                std::thread::spawn(move || taker.talk(stream).ok());
            }
        })?;
        Ok((mailbox, address))
    }

    /// How many mails there are.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One connection, to its end.
    fn talk(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_nodelay(true)?;
        let remote = stream.peer_addr()?.ip();
        let (mut input, mut output) = (BufReader::new(stream.try_clone()?), stream);
        let hand = Hand { mailbox: self.clone(), mail: Vec::new() };
        let mut session: Session<Hand> = SessionBuilder::new("demo.localhost").build(remote, hand);
        reply(&mut output, &session.greeting())?;
        let mut line = Vec::new();
        while input.read_until(b'\n', &mut line)? > 0 {
            let answer = session.process(&line);
            match answer.action {
                Action::NoReply => {}
                Action::Reply => reply(&mut output, &answer)?,
                Action::Close | Action::UpgradeTls => return reply(&mut output, &answer),
            }
            line.clear();
        }
        Ok(())
    }
}

/// In one packet.
fn reply(output: &mut TcpStream, answer: &Response) -> io::Result<()> {
    output.write_all(&answer.buffer()?)
}

/// Takes the mail that is just coming.
struct Hand {
    mailbox: Mailbox,
    mail: Vec<u8>,
}

impl Handler for Hand {
    fn data(&mut self, line: &[u8]) -> io::Result<()> {
        self.mail.extend_from_slice(line);
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        let number = self.mailbox.count.fetch_add(1, Ordering::SeqCst) + 1;
        let written = std::fs::write(self.mailbox.folder.join(format!("{number:04}.eml")), &self.mail);
        self.mail.clear();
        if written.is_ok() { response::OK } else { response::OUT_OF_SPACE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_mail::{Answer, Composer, Content, Draft, Mailbox as To, Settings, Smtp, Templates};

    #[tokio::test]
    async fn what_is_sent_lies_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (mailbox, address) = Mailbox::open(folder.path().join("mails")).unwrap();
        let settings = Settings {
            url: format!("smtp://{address}"),
            from: "Shop <shop@example.com>".to_owned(),
            ..Settings::default()
        };
        let (smtp, composer) = (Smtp::new(&settings).unwrap(), Composer::new(&settings).unwrap());
        let templates = Templates::load(None).unwrap();
        let to: To = "Ada <ada@example.com>".parse().unwrap();
        let soon = tokio::time::Instant::now() + Duration::from_secs(60);
        for (number, content) in Content::examples().into_iter().enumerate() {
            let url = content.unsubscribe_url().map(|url| url.parse().unwrap());
            let draft = Draft {
                delivery: &format!("delivery-{number}"),
                to: &to,
                date: "2026-11-21T10:00:00Z".parse().unwrap(),
                unsubscribe: url.as_ref(),
                texts: templates.render(&content).unwrap(),
            };
            let answer = smtp.send(composer.compose(draft).unwrap(), soon).await;
            assert!(matches!(answer, Answer::Sent { .. }), "{answer:?}");
        }
        assert_eq!(mailbox.count(), 3);
        let first = std::fs::read_to_string(mailbox.folder().join("0001.eml")).unwrap();
        assert!(first.contains("delivery-0"), "{first}");
    }
}
