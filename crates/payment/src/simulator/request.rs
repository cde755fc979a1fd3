//! Requests as the simulator reads them. One that is refused here has not used up its key.

use super::book::Answer;
use axum::http::{HeaderMap, header};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A request that can be begun.
pub(crate) struct Request {
    pub key: String,
    /// Of path and parameters: the same key must come with the same again. A digest, so that the ledger file
    /// holds no payment method.
    pub fingerprint: Uuid,
    pub order_id: String,
    pub wanted: Wanted,
}

/// What is wanted, in Stripe's units.
pub(crate) enum Wanted {
    Charge {
        amount: i64,
        currency: String,
        method: String,
    },
    /// Without an amount: all that is left.
    Refund {
        charge_id: String,
        amount: Option<i64>,
    },
}

impl Wanted {
    /// The payment method of a charge.
    pub(crate) fn method(&self) -> Option<&str> {
        match self {
            Wanted::Charge { method, .. } => Some(method),
            Wanted::Refund { .. } => None,
        }
    }
}

impl Request {
    pub(crate) fn charge(headers: &HeaderMap, body: &str) -> Result<Self, Answer> {
        Request::read(headers, "/v1/payment_intents", body, |form| {
            let amount = amount(form)?.ok_or_else(|| missing("amount"))?;
            let currency = form.get("currency").filter(|code| is_code(code)).ok_or_else(|| missing("currency"))?;
            let method = form.get("payment_method").ok_or_else(|| missing("payment_method"))?;
            if form.get("confirm").is_none_or(|confirm| confirm != "true") {
                return Err(missing("confirm"));
            }
            Ok(Wanted::Charge { amount, currency: currency.clone(), method: method.clone() })
        })
    }

    pub(crate) fn refund(headers: &HeaderMap, body: &str) -> Result<Self, Answer> {
        Request::read(headers, "/v1/refunds", body, |form| {
            let charge_id = form.get("payment_intent").ok_or_else(|| missing("payment_intent"))?;
            Ok(Wanted::Refund { charge_id: charge_id.clone(), amount: amount(form)? })
        })
    }

    fn read(
        headers: &HeaderMap,
        path: &str,
        body: &str,
        wanted: impl FnOnce(&BTreeMap<String, String>) -> Result<Wanted, Answer>,
    ) -> Result<Self, Answer> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if header(header::AUTHORIZATION.as_str()).is_none_or(|value| !value.starts_with("Bearer sk_")) {
            return Err(Answer::error(401, "invalid_request_error", None));
        }
        let key = header("idempotency-key").filter(|key| (1..=255).contains(&key.len()));
        let key = key.ok_or_else(|| missing("idempotency_key"))?;
        let form: BTreeMap<_, _> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        let same = format!("{path} {form:?}");
        Ok(Request {
            key: key.to_owned(),
            fingerprint: Uuid::new_v5(&Uuid::NAMESPACE_OID, same.as_bytes()),
            order_id: form.get("metadata[order_id]").cloned().unwrap_or_default(),
            wanted: wanted(&form)?,
        })
    }
}

fn amount(form: &BTreeMap<String, String>) -> Result<Option<i64>, Answer> {
    let Some(text) = form.get("amount") else { return Ok(None) };
    text.parse().ok().filter(|amount| *amount > 0).map(Some).ok_or_else(|| missing("amount"))
}

fn is_code(code: &str) -> bool {
    code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_lowercase())
}

fn missing(param: &str) -> Answer {
    Answer::invalid(400, "parameter_missing", param)
}
