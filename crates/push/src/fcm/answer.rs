//! What FCM's answers mean: <https://firebase.google.com/docs/cloud-messaging/error-codes>.
//!
//! A doubtful case costs no token: a 404 that is not demonstrably FCM's is a wrong URL, not a device that is gone. And
//! FCM's own message is never passed on: it may quote the token.

use crate::http::{Answered, Reply};
use crate::{Answer, Fault};
use serde::Deserialize;

/// What an answer comes to.
pub(super) enum Verdict {
    Answered(Answer),
    /// The access token is not taken; why.
    Unauthorized(String),
}

#[derive(Deserialize)]
struct Sent {
    #[serde(rename = "name")]
    _name: String,
}

#[derive(Deserialize)]
struct Enveloped {
    error: FcmError,
}

#[derive(Deserialize)]
struct FcmError {
    status: Option<String>,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    error_code: Option<String>,
    #[serde(default)]
    field_violations: Vec<Violation>,
}

#[derive(Deserialize)]
struct Violation {
    #[serde(default)]
    field: String,
}

impl FcmError {
    /// The more exact of the two, where it is a word of FCM's vocabulary.
    fn code(&self) -> &str {
        let exact = self.details.iter().find_map(|detail| detail.error_code.as_deref());
        let code = exact.or(self.status.as_deref()).unwrap_or_default();
        let word = (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        if word { code } else { "unknown" }
    }

    /// Of an invalid argument: the size was checked before, so what is left without a named field is the token.
    fn faulty(&self) -> Fault {
        let mut violations = self.details.iter().flat_map(|detail| &detail.field_violations);
        if violations.all(|violation| violation.field == "message.token") { Fault::Target } else { Fault::Message }
    }
}

pub(super) fn verdict(reply: Reply) -> Verdict {
    let Answered { status, retry_after, body } = match reply.answered() {
        Ok(answered) => answered,
        Err(failure) => return Verdict::Answered(failure),
    };
    let body = body.unwrap_or_default();
    let error = serde_json::from_slice::<Enveloped>(&body).ok().map(|enveloped| enveloped.error);
    let code = error.as_ref().map_or("no answer of FCM's", FcmError::code);
    let why = format!("{status} {code}");
    let refused = |fault| Answer::Refused { fault, why: why.clone() };
    let answer = match (status, code, &error) {
        (200..300, _, None) if serde_json::from_slice::<Sent>(&body).is_ok() => Answer::Sent,
        (200..300, ..) => Answer::Unknown { why: format!("{why}: is fcmurl right?") },
        (404 | 410, "UNREGISTERED" | "NOT_FOUND", _) => Answer::Gone,
        (429 | 408 | 500.., ..) => Answer::Later { why, retry_after },
        // A key of Apple's or for the web that the project lacks. A new access token would not help.
        (401, "THIRD_PARTY_AUTH_ERROR", _) => refused(Fault::Setup),
        (401, ..) => return Verdict::Unauthorized(why),
        // The token is another project's.
        (403, "SENDER_ID_MISMATCH", _) => refused(Fault::Target),
        (400, "INVALID_ARGUMENT", Some(error)) => refused(error.faulty()),
        (400 | 413, _, Some(_)) => refused(Fault::Message),
        (_, _, Some(_)) => {
            Answer::Refused { fault: Fault::Setup, why: format!("{why}: check fcmproject and fcmkeyfile") }
        }
        (_, _, None) => Answer::Refused { fault: Fault::Setup, why: format!("{why}: is fcmurl right?") },
    };
    Verdict::Answered(answer)
}
