//! What the simulator knows: the answer under each key, and the charges. A line of the ledger file is written before
//! its answer is given, so a restarted simulator has forgotten nothing that anybody was told.

use super::request::Request;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use uuid::Uuid;

/// What really happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Every charge that took money, by its id.
    pub charges: Vec<LedgerCharge>,
    /// How many keys have an answer, declines included.
    pub keys: usize,
}

/// A charge that took money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerCharge {
    /// The payment intent.
    pub charge_id: String,
    /// The order, as the caller named it.
    pub order_id: String,
    /// The key under which it was made.
    pub idempotency_key: String,
    /// What was taken, in Stripe's units.
    pub amount: i64,
    /// In upper case.
    pub currency: String,
    /// What was given back of it, in Stripe's units.
    pub refunded: i64,
    /// How many keys had a part in it: one, and one more for each refund.
    pub keys: usize,
}

/// An answer, to the byte.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub status: u16,
    pub body: String,
}

/// What an answer changed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effect {
    Charged(LedgerCharge),
    Refunded { charge_id: String, amount: i64 },
}

/// A finished call; a line of the ledger file.
#[derive(Serialize, Deserialize)]
pub(crate) struct Kept {
    pub key: String,
    pub fingerprint: Uuid,
    pub answer: Answer,
    pub effect: Option<Effect>,
}

/// What to do with a request.
pub(crate) enum Begun {
    /// Perform it.
    New,
    /// Give its answer again.
    Again(Answer),
    /// Refuse it, keeping nothing.
    Not(Answer),
}

/// All that is known.
pub(crate) struct Book {
    /// The answer, once there is one.
    keys: HashMap<String, (Uuid, Option<Answer>)>,
    charges: BTreeMap<String, LedgerCharge>,
    file: Option<File>,
}

impl Book {
    /// Replays `path`. A last line without its end was never answered for, and is removed.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let mut book = Book { keys: HashMap::new(), charges: BTreeMap::new(), file: None };
        let Some(path) = path else { return Ok(book) };
        let mut file = File::options().read(true).append(true).create(true).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64)?;
        for line in text[..whole].lines() {
            book.apply(serde_json::from_str(line)?);
        }
        book.file = Some(file);
        Ok(book)
    }

    pub(crate) fn begin(&mut self, request: &Request) -> Begun {
        match self.keys.get(&request.key) {
            None => {
                self.keys.insert(request.key.clone(), (request.fingerprint, None));
                Begun::New
            }
            Some((fingerprint, _)) if *fingerprint != request.fingerprint => {
                Begun::Not(Answer::error(400, "idempotency_error", None))
            }
            Some((_, Some(answer))) => Begun::Again(answer.clone()),
            Some((_, None)) => Begun::Not(Answer::error(409, "idempotency_error", Some("idempotency_key_in_use"))),
        }
    }

    /// Keeps the answer, then gives it. What cannot be kept has not happened, and its key is free again.
    pub(crate) fn finish(&mut self, kept: Kept) -> Answer {
        let answer = kept.answer.clone();
        if self.write(&kept).is_err() {
            self.keys.remove(&kept.key);
            return Answer::error(500, "api_error", None);
        }
        self.apply(kept);
        answer
    }

    /// What a refund comes to; changes nothing yet.
    pub(crate) fn refund(&self, key: &str, charge_id: &str, amount: Option<i64>) -> (Answer, Option<Effect>) {
        let Some(charge) = self.charges.get(charge_id) else {
            return (Answer::invalid(404, "resource_missing", "payment_intent"), None);
        };
        let left = charge.amount - charge.refunded;
        let amount = amount.unwrap_or(left);
        if left == 0 {
            (Answer::error(400, "invalid_request_error", Some("charge_already_refunded")), None)
        } else if amount > left {
            (Answer::invalid(400, "amount_too_large", "amount"), None)
        } else {
            let body = json!({
                "id": id("re", key), "object": "refund", "amount": amount, "payment_intent": charge_id,
                "currency": charge.currency.to_ascii_lowercase(), "status": "succeeded",
            });
            let effect = Effect::Refunded { charge_id: charge_id.to_owned(), amount };
            (Answer { status: 200, body: body.to_string() }, Some(effect))
        }
    }

    pub(crate) fn ledger(&self) -> Ledger {
        let keys = self.keys.values().filter(|(_, answer)| answer.is_some()).count();
        Ledger { charges: self.charges.values().cloned().collect(), keys }
    }

    fn write(&mut self, kept: &Kept) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_vec(kept)?;
        line.push(b'\n');
        let end = file.metadata()?.len();
        if let Err(error) = file.write_all(&line) {
            // Half a line would make the next one unreadable.
            file.set_len(end)?;
            return Err(error);
        }
        Ok(())
    }

    fn apply(&mut self, kept: Kept) {
        match kept.effect {
            Some(Effect::Charged(charge)) => {
                self.charges.insert(charge.charge_id.clone(), charge);
            }
            Some(Effect::Refunded { charge_id, amount }) => {
                if let Some(charge) = self.charges.get_mut(&charge_id) {
                    charge.refunded += amount;
                    charge.keys += 1;
                }
            }
            None => {}
        }
        self.keys.insert(kept.key, (kept.fingerprint, Some(kept.answer)));
    }
}

/// A charge that is paid.
pub(crate) fn charge(request: &Request, amount: i64, currency: &str) -> (Answer, Option<Effect>) {
    let charge_id = id("pi", &request.key);
    let body = json!({
        "id": charge_id, "object": "payment_intent", "amount": amount, "amount_received": amount,
        "currency": currency, "latest_charge": id("ch", &request.key), "livemode": false,
        "metadata": { "order_id": request.order_id }, "status": "succeeded",
    });
    let effect = Effect::Charged(LedgerCharge {
        charge_id,
        order_id: request.order_id.clone(),
        idempotency_key: request.key.clone(),
        amount,
        currency: currency.to_ascii_uppercase(),
        refunded: 0,
        keys: 1,
    });
    (Answer { status: 200, body: body.to_string() }, Some(effect))
}

impl Answer {
    pub(crate) fn error(status: u16, kind: &str, code: Option<&str>) -> Self {
        Answer { status, body: json!({ "error": { "type": kind, "code": code } }).to_string() }
    }

    pub(crate) fn invalid(status: u16, code: &str, param: &str) -> Self {
        let error = json!({ "type": "invalid_request_error", "code": code, "param": param });
        Answer { status, body: json!({ "error": error }).to_string() }
    }

    pub(crate) fn decline(code: &str) -> Self {
        let error = json!({ "type": "card_error", "code": "card_declined", "decline_code": code });
        Answer { status: 402, body: json!({ "error": error }).to_string() }
    }
}

/// Derived from the key, so that nothing is to be drawn or remembered.
fn id(prefix: &str, key: &str) -> String {
    format!("{prefix}_{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{prefix} {key}").as_bytes()).simple())
}
