//! A real receiver of web push: npm's `web-push-testing`. It makes subscriptions as a browser does, checks VAPID with
//! Node's own cryptography, decrypts RFC 8291, and knows subscriptions that have expired.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::eventually::eventually;
use crate::fetched::{fetched, npm};
use crate::process::Process;
use crate::unavailable::{say, unavailable};

const VERSION: &str = "1.2.2";

/// The package's own command listens on all interfaces and leaves a daemon behind; its parts need not.
const SCRIPT: &str = r#"
const { PushApiModel } = require('web-push-testing/src/PushApiModel.js');
const WebPushTestingServer = require('web-push-testing/src/server.js');
const model = new PushApiModel();
const receiver = new WebPushTestingServer(model, 0);
receiver.setRequestHandlers();
const server = require('http').createServer(receiver._app);
server.listen(0, '127.0.0.1', () => {
  const origin = `http://127.0.0.1:${server.address().port}`;
  model.notifyUrl = `${origin}/notify/`;
  console.log(`listens at ${origin}`);
});
"#;

/// Node takes a fraction of a second; this is for a machine that is busy with everything else.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A receiver of its own for each test; it ends when this is dropped, or with the test process.
pub struct PushReceiver {
    origin: String,
    // Held, not used.
    _process: Process,
}

/// A browser's subscription.
#[derive(Clone, Debug)]
pub struct PushSubscription {
    /// Where messages are sent.
    pub endpoint: String,
    /// The browser's public key.
    pub p256dh: String,
    /// The browser's secret.
    pub auth: String,
    id: String,
}

impl PushReceiver {
    /// Starts a receiver; `None`, and a line on standard error, where it cannot be had.
    ///
    /// # Panics
    /// Instead of `None`, under `CI=true`.
    pub async fn start() -> Option<Self> {
        match Self::try_start().await {
            Ok(receiver) => {
                say(&format!("test push receiver: {}", receiver.origin));
                Some(receiver)
            }
            Err(error) => {
                unavailable(
                    &format!("no receiver of web push for this test ({error:#}); install Node.js 20 and npm"),
                    false,
                );
                None
            }
        }
    }

    async fn try_start() -> anyhow::Result<Self> {
        let lib = fetched(&format!("web-push-testing-{VERSION}"), |_, lib| npm(lib, "web-push-testing", VERSION))?;
        let modules = lib.join("node_modules").canonicalize().context("the modules are gone")?;
        let process = Process::spawn(Path::new("node"), ["-e", SCRIPT], [("NODE_PATH", modules)])?;
        let origin = eventually("the receiver of web push listens", START_LIMIT, async || {
            let log = process.log().map_err(|error| error.to_string())?;
            let origin = log.lines().find_map(|line| line.strip_prefix("listens at "));
            origin.map(str::to_owned).ok_or(log)
        })
        .await;
        Ok(Self { origin, _process: process })
    }

    /// For `push.origins`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Subscribes as a browser does, for messages that are signed with the key of `public_key`.
    pub async fn subscribe(&self, public_key: &str) -> anyhow::Result<PushSubscription> {
        let options = json!({ "userVisibleOnly": "true", "applicationServerKey": public_key });
        let answer = self.post("subscribe", &options).await?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("no subscription");
        let data = &answer["data"];
        Ok(PushSubscription {
            endpoint: text(&data["endpoint"])?,
            p256dh: text(&data["keys"]["p256dh"])?,
            auth: text(&data["keys"]["auth"])?,
            id: text(&data["clientHash"])?,
        })
    }

    /// From now on the subscription is gone: 410.
    pub async fn expire(&self, subscription: &PushSubscription) -> anyhow::Result<()> {
        self.post(&format!("expire-subscription/{}", subscription.id), &json!({})).await.map(drop)
    }

    /// What the subscription got, decrypted, in the order of its arrival.
    pub async fn received(&self, subscription: &PushSubscription) -> anyhow::Result<Vec<Value>> {
        let answer = self.post("get-notifications", &json!({ "clientHash": subscription.id })).await?;
        let messages = answer["data"]["messages"].as_array().context("no messages")?;
        let parse = |text: &Value| serde_json::from_str(text.as_str().unwrap_or_default());
        messages.iter().map(parse).collect::<Result<_, _>>().context("a message is not JSON")
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = Request::post(format!("{}/{path}", self.origin))
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string())
            .context("no request")?;
        let answer = Client::builder(TokioExecutor::new()).build_http().request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&body));
        // Where there is nothing to say it says OK.
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }
}
