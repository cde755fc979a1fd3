//! One connection to the server, and a mail on it.

use super::answer::{Failed, Fault, Reply, Step, root};
use super::stream::Stream;
use super::tls::{Implicit, start_tls};
use crate::message::Message;
use crate::settings::{Security, Server, Settings, SettingsError};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream, TlsParameters};
use lettre::transport::smtp::commands::{Data, Ehlo, Mail, Quit, Rcpt, Rset};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use secrecy::{ExposeSecret, SecretString};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

type Smtp<T> = Result<T, lettre::transport::smtp::Error>;

/// When TLS begins, with what it needs.
enum Tls {
    AtOnce(Implicit),
    AfterGreeting(TlsParameters),
    Never,
}

/// Opens sessions.
pub(super) struct Dialer {
    server: Server,
    tls: Tls,
    hello: ClientId,
    credentials: Option<(String, SecretString)>,
    limit: Duration,
}

impl Dialer {
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let server = settings.server()?;
        let tls = match server.security {
            Security::Implicit => Tls::AtOnce(Implicit::new(settings, &server)?),
            Security::StartTls => Tls::AfterGreeting(start_tls(settings, &server)?),
            Security::None => Tls::Never,
        };
        if settings.timeout.is_zero() {
            return Err(SettingsError::Timeout);
        }
        let hello = ClientId::Domain(settings.sender()?.address.domain().to_owned());
        Ok(Dialer { server, tls, hello, credentials: settings.credentials()?, limit: settings.timeout })
    }

    /// Connects, encrypts, greets, logs in: whatever fails here, no mail has been named.
    pub async fn open(&self) -> Result<Session, Failed> {
        let limit = self.limit;
        let tcp = TcpStream::connect((self.server.host.as_str(), self.server.port));
        let tcp = within(limit, Step::Connect, tcp).await?.map_err(|e| Failed::silence(Step::Connect, root(&e)))?;
        tcp.set_nodelay(true).map_err(|e| Failed::silence(Step::Connect, root(&e)))?;
        let address = tcp.peer_addr().map_err(|e| Failed::silence(Step::Connect, root(&e)))?;
        let gone = Arc::new(AtomicBool::default());
        let stream: Box<dyn AsyncTokioStream> = match &self.tls {
            Tls::AtOnce(tls) => {
                let stream = within(limit, Step::Tls, tls.connect(tcp)).await?;
                let stream = stream.map_err(|e| Failed::silence(Step::Tls, root(&e)))?;
                Box::new(Stream::new(stream, address, gone.clone()))
            }
            Tls::AfterGreeting(_) | Tls::Never => Box::new(Stream::new(tcp, address, gone.clone())),
        };
        let connect = AsyncSmtpConnection::connect_with_transport(stream, &self.hello);
        let mut connection = smtp(limit, Step::Greeting, connect).await?;
        if let Tls::AfterGreeting(tls) = &self.tls {
            smtp(limit, Step::StartTls, connection.starttls(tls.clone(), &self.hello)).await?;
        }
        // Asked once more: the library does not tell of this extension.
        let offers = smtp(limit, Step::Greeting, connection.command(Ehlo::new(self.hello.clone()))).await?;
        let pipelining = offers.message().any(|line| line.trim().eq_ignore_ascii_case("PIPELINING"));
        if let Some((user, password)) = &self.credentials {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            smtp(limit, Step::Auth, connection.auth(&mechanisms, &credentials)).await?;
        }
        Ok(Session { connection, gone, pipelining, ahead: false, limit, spent: false })
    }
}

/// An open connection between two mails.
pub(super) struct Session {
    connection: AsyncSmtpConnection,
    /// What was written last has left.
    gone: Arc<AtomicBool>,
    pipelining: bool,
    /// The next mail's envelope is on its way.
    ahead: bool,
    limit: Duration,
    /// No further command makes sense.
    spent: bool,
}

impl Session {
    /// Whether the server takes commands before it has answered others.
    pub fn pipelines(&self) -> bool {
        self.pipelining
    }

    /// Names a mail, unless that has been done with the text of the one before.
    pub async fn envelope(&mut self, message: &Message) -> Result<(), Failed> {
        if !self.pipelining {
            self.ask(Step::Mail, Mail::new(Some(message.from.lettre()), Vec::new())).await?;
            self.ask(Step::Rcpt, Rcpt::new(message.to.lettre(), Vec::new())).await?;
            return self.ask(Step::Data, Data).await.map(|_| ());
        }
        let commands = Some(commands(message)).filter(|_| !std::mem::take(&mut self.ahead));
        // All replies are read before the first refusal counts, or a later command would get what is left.
        let mut refused = None;
        for step in [Step::Mail, Step::Rcpt, Step::Data] {
            let reply = match (step, &commands) {
                (Step::Mail, Some(commands)) => smtp(self.limit, step, self.connection.command(commands)).await,
                _ => smtp(self.limit, step, self.connection.read_response()).await,
            };
            match reply.and_then(|response| expected(step, &response)) {
                // The server now waits for the text of a mail that it has refused.
                Ok(_) if step == Step::Data && refused.is_some() => self.spent = true,
                Ok(_) => {}
                Err(failed) if matches!(failed.fault, Fault::Reply(..)) => refused = refused.or(Some(failed)),
                // A refusal stands, although the server hangs up after it.
                Err(failed) => {
                    self.spent = true;
                    return Err(refused.unwrap_or(failed));
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Hands over the text and the final dot, and with them the envelope of the next mail: one packet for the server to wake up
    /// for. (The library's own way sends the dot apart.)
    pub async fn text(&mut self, text: &str, next: Option<&Message>) -> Result<Reply, Failed> {
        // A line's first dot is doubled (RFC 5321, 4.5.2). A text begins with a header's name.
        let text = text.replace("\r\n.", "\r\n..");
        let packet = format!("{text}\r\n.\r\n{}", next.map(commands).unwrap_or_default());
        self.ahead = next.is_some();
        self.gone.store(false, Relaxed);
        let reply = timeout(self.limit, self.connection.command(packet)).await;
        // Until the dot has left, the server cannot have the mail. What stayed behind may have been the next envelope alone.
        let step = if self.ahead || self.gone.load(Relaxed) { Step::End } else { Step::Text };
        match reply {
            Ok(Ok(response)) => expected(step, &response),
            Ok(Err(error)) => Err(Failed::smtp(step, &error)),
            Err(_) => Err(late(self.limit, step)),
        }
    }

    async fn ask(&mut self, step: Step, command: impl Display) -> Result<Reply, Failed> {
        let response = smtp(self.limit, step, self.connection.command(command)).await?;
        expected(step, &response)
    }

    /// Forgets a mail that was refused half-way; whether the session can go on.
    pub async fn reset(&mut self) -> bool {
        !self.spent && self.ask(Step::Mail, Rset).await.is_ok_and(|reply| reply.code == 250)
    }

    /// Says goodbye; a server that does not answer has heard it all the same.
    pub async fn quit(mut self) {
        let _ = timeout(self.limit, self.connection.command(Quit)).await;
    }
}

/// An envelope: three commands, each with a reply.
fn commands(message: &Message) -> String {
    let mail = Mail::new(Some(message.from.lettre()), Vec::new());
    let rcpt = Rcpt::new(message.to.lettre(), Vec::new());
    format!("{mail}{rcpt}{Data}")
}

/// A positive reply of the wrong kind is one to something else: whose, nobody knows.
fn expected(step: Step, response: &Response) -> Result<Reply, Failed> {
    let reply = Reply::new(response.code().into(), response.first_line().unwrap_or_default());
    let fits = if step == Step::Data { reply.code == 354 } else { reply.code / 100 == 2 };
    if fits { Ok(reply) } else { Err(Failed::silence(step, format_args!("{reply} is out of turn"))) }
}

async fn smtp<T>(limit: Duration, step: Step, work: impl Future<Output = Smtp<T>>) -> Result<T, Failed> {
    within(limit, step, work).await?.map_err(|error| Failed::smtp(step, &error))
}

async fn within<T>(limit: Duration, step: Step, work: impl Future<Output = T>) -> Result<T, Failed> {
    timeout(limit, work).await.map_err(|_| late(limit, step))
}

fn late(limit: Duration, step: Step) -> Failed {
    Failed::silence(step, format_args!("no answer within {limit:?}"))
}
