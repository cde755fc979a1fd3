//! Firebase Cloud Messaging, HTTP v1: <https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send>.

mod access;
mod answer;

use crate::endpoints::Reach;
use crate::http::{Sending, attempted, client, exchange};
use crate::settings::read;
use crate::target::FcmToken;
use crate::{Answer, Attempted, Call, Clock, Fault, Settings, SettingsError, Urgency};
use access::{Access, ServiceAccount, secret_url};
use answer::{Verdict, verdict};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Url};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

#[derive(Debug)]
pub(crate) struct Fcm {
    client: Client,
    url: Url,
    access: Access,
    clock: Clock,
}

impl Fcm {
    /// None where there is no service account.
    pub(crate) fn new(settings: &Settings, clock: Clock) -> Result<Option<Self>, SettingsError> {
        let Some(file) = &settings.fcm_key_file else { return Ok(None) };
        let text = read("fcmkeyfile", file)?;
        let account = ServiceAccount::parse(text.expose_secret())?;
        let project = settings.fcm_project.as_ref().or(account.project_id.as_ref()).ok_or(SettingsError::Project)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-:.".contains(&byte);
        if project.is_empty() || !project.bytes().all(plain) {
            return Err(SettingsError::Project);
        }
        let mut url = secret_url("fcmurl", &settings.fcm_url)?;
        url.set_path(&format!("{}/v1/projects/{project}/messages:send", url.path().trim_end_matches('/')));
        let client = client(Reach::Anywhere, settings.checked_timeout()?)?;
        let access = Access::new(account, client.clone(), clock)?;
        Ok(Some(Fcm { client, url, access, clock }))
    }

    pub(crate) async fn send(&self, token: &FcmToken, sending: &Sending<'_>) -> Attempted {
        let body = self.body(token, sending).to_string();
        let mut renewed = false;
        loop {
            let bearer = match self.access.bearer(sending).await {
                Ok(bearer) => bearer,
                Err(attempted) => return attempted,
            };
            let (verdict, call) = self.post(&bearer, body.clone(), sending).await;
            let answer = match verdict {
                Verdict::Answered(answer) => answer,
                // Taken back before its time. A fresh one that is not taken either is no matter of time.
                Verdict::Unauthorized(_) if !renewed => {
                    self.access.forget(&bearer).await;
                    renewed = true;
                    continue;
                }
                Verdict::Unauthorized(why) => {
                    Answer::Refused { fault: Fault::Setup, why: format!("{why}: check fcmkeyfile") }
                }
            };
            return attempted(answer, call);
        }
    }

    async fn post(&self, bearer: &HeaderValue, body: String, sending: &Sending<'_>) -> (Verdict, Call) {
        let request = self
            .client
            .post(self.url.clone())
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        let (reply, call) = exchange(request, &self.url, sending, self.clock).await;
        (verdict(reply), call)
    }

    /// A token does not say what kind of device it is, so each kind is told its own way.
    fn body(&self, token: &FcmToken, sending: &Sending<'_>) -> Value {
        let message = sending.message;
        let ttl = message.ttl_seconds();
        let high = message.urgency == Urgency::High;
        let expires = (self.clock)().as_second().saturating_add_unsigned(ttl);
        let mut body = json!({
            "token": token.expose(),
            "notification": { "title": message.title, "body": message.body },
            "data": { "url": message.url },
            "android": { "priority": if high { "HIGH" } else { "NORMAL" }, "ttl": format!("{ttl}s") },
            "apns": { "headers": {
                "apns-priority": if high { "10" } else { "5" },
                "apns-expiration": expires.to_string(),
            } },
            "webpush": { "headers": { "TTL": ttl.to_string(), "Urgency": message.urgency.as_str() } },
        });
        if let Some(topic) = message.hashed_topic() {
            body["android"]["collapse_key"] = topic.clone().into();
            body["android"]["notification"] = json!({ "tag": topic });
            body["apns"]["headers"]["apns-collapse-id"] = topic.clone().into();
            body["webpush"]["headers"]["Topic"] = topic.into();
        }
        // Another scheme would be refused.
        if message.url.starts_with("https://") {
            body["webpush"]["fcm_options"] = json!({ "link": message.url });
        }
        json!({ "message": body })
    }
}
