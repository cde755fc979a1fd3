//! A mail server and a push service that take everything and note who was told when.

use anyhow::Context;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use mailin::{Action, Handler, Response, Session, SessionBuilder, response};
use serde_json::{Value, json};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use waybill_spine::system_clock;

/// What precedes the user in a device's token: as `waybill produce subscribers` makes them.
pub const TOKEN_OF: &str = "token-of-";
/// Made for tests. It opens nothing.
const KEY: &str = include_str!("../../../../crates/push/tests/push/service-account.pem");
const PROJECT: &str = "shop-1";

/// A message that came.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When, in microseconds since 1970.
    pub at: i64,
    /// For whom.
    pub user: String,
    /// A mail's Message-ID, before its @; empty for push.
    pub delivery: String,
}

/// All messages of a channel, in the order of their arrival.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<Arrival>>>);

impl Log {
    fn note(&self, user: String, delivery: String) {
        let at = system_clock().as_microsecond();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arrival { at, user, delivery });
    }
}

/// Both receivers; they end when this is dropped.
pub struct Receivers {
    mail: SocketAddr,
    push: SocketAddr,
    logs: [Log; 2],
    /// The mail server, unless it is away.
    mails: JoinSet<()>,
    _pushes: JoinSet<()>,
}

impl Receivers {
    /// On free ports of loopback.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> anyhow::Result<Self> {
        let logs: [Log; 2] = Default::default();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (mails, pushes) = (TcpListener::bind(any).await?, TcpListener::bind(any).await?);
        let (mail, push) = (mails.local_addr()?, pushes.local_addr()?);
        let mails = JoinSet::from_iter([take_mails(mails, logs[0].clone())]);
        let service = Router::new().route("/token", post(grant)).fallback(post(message)).with_state(logs[1].clone());
        let pushes = JoinSet::from_iter([async move { drop(axum::serve(pushes, service).await) }]);
        Ok(Receivers { mail, push, logs, mails, _pushes: pushes })
    }

    /// The mail server goes away: its connections are cut wherever they are, new ones are refused.
    pub async fn close_mail(&mut self) {
        self.mails.shutdown().await;
    }

    /// The mail server is back, at its address.
    ///
    /// # Errors
    /// Somebody else has its port.
    pub async fn open_mail(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.mail).await.context("the mail server's port")?;
        self.mails.spawn(take_mails(listener, self.logs[0].clone()));
        Ok(())
    }

    /// Messages of both channels so far.
    pub fn count(&self) -> usize {
        self.logs.iter().map(|log| log.0.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// All messages by mail, and all by push.
    pub fn arrived(&self) -> [Vec<Arrival>; 2] {
        self.logs.each_ref().map(|log| log.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Settings with which email and push send here, for what [`Receivers::write_account`] wrote.
    pub fn settings(&self, account: &Path) -> [(&'static str, String); 8] {
        [
            ("WAYBILL_MAIL_URL", format!("smtp://{}", self.mail)),
            ("WAYBILL_MAIL_FROM", "Shop <shop@shop.example>".to_owned()),
            ("WAYBILL_UNSUBSCRIBE_URL", "https://shop.example/unsubscribe".to_owned()),
            ("WAYBILL_UNSUBSCRIBE_KEYS", "k1:0123456789abcdef0123456789abcdef".to_owned()),
            ("WAYBILL_SHOP_NAME", "Shop".to_owned()),
            ("WAYBILL_SHOP_URL", "https://shop.example".to_owned()),
            ("WAYBILL_PUSH_FCMKEYFILE", account.display().to_string()),
            ("WAYBILL_PUSH_FCMURL", format!("http://{}", self.push)),
        ]
    }

    /// Writes the file of a service account of Firebase that gets its access here.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_account(&self, file: &Path) -> anyhow::Result<()> {
        let account = json!({"type": "service_account", "project_id": PROJECT, "private_key_id": "key-1", "private_key": KEY,
            "client_email": "push@shop-1.iam.gserviceaccount.com", "token_uri": format!("http://{}/token", self.push)});
        std::fs::write(file, account.to_string()).with_context(|| file.display().to_string())
    }
}

async fn grant() -> Json<Value> {
    Json(json!({"access_token": "access", "expires_in": 3_599, "token_type": "Bearer"}))
}

async fn message(State(log): State<Log>, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    let Some(user) = body["message"]["token"].as_str().and_then(|token| token.strip_prefix(TOKEN_OF)) else {
        return (StatusCode::BAD_REQUEST, Json(json!({})));
    };
    log.note(user.to_owned(), String::new());
    (StatusCode::OK, Json(json!({"name": format!("projects/{PROJECT}/messages/1")})))
}

async fn take_mails(listener: TcpListener, log: Log) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, from)) = accepted {
                let log = log.clone();
                // One that breaks is the sender's: a killed process's, mostly.
                connections.spawn(async move { talk(stream, from, log).await.ok() });
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, to its end.
async fn talk(stream: TcpStream, from: SocketAddr, log: Log) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (input, mut output) = stream.into_split();
    let mut input = BufReader::new(input);
    let hand = Hand { log, to: String::new(), delivery: String::new() };
    let mut session: Session<Hand> = SessionBuilder::new("crowd.localhost").build(from.ip(), hand);
    output.write_all(&session.greeting().buffer()?).await?;
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).await? > 0 {
        let answer = session.process(&line);
        match answer.action {
            Action::NoReply => {}
            Action::Reply => output.write_all(&answer.buffer()?).await?,
            Action::Close | Action::UpgradeTls => return output.write_all(&answer.buffer()?).await,
        }
        line.clear();
    }
    Ok(())
}

/// Takes the mail that is just coming.
struct Hand {
    log: Log,
    to: String,
    delivery: String,
}

impl Handler for Hand {
    fn rcpt(&mut self, to: &str) -> Response {
        self.to = to.split('@').next().unwrap_or_default().trim_start_matches('<').to_owned();
        response::OK
    }

    fn data(&mut self, line: &[u8]) -> io::Result<()> {
        let id = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix("Message-ID: <"));
        if let Some((delivery, _)) = id.and_then(|id| id.split_once('@'))
            && self.delivery.is_empty()
        {
            self.delivery = delivery.to_owned();
        }
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        self.log.note(std::mem::take(&mut self.to), std::mem::take(&mut self.delivery));
        response::OK
    }
}
