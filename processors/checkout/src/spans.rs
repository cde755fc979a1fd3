//! The spans of a checkout, named in `docs/telemetry.md`: parts of `checkout.process`.

use crate::carts::CartLine;
use crate::payment::{Answered, PaymentAnswer};
use crate::saga::Saga;
use crate::till::{Interval, Till};
use jiff::Timestamp;
use opentelemetry::KeyValue;
use waybill_events::{CheckoutRequested, Step};
use waybill_inventory::Reserved;
use waybill_payment::{Attempted, Call, Charged, Refunded};
use waybill_spine::{Details, Part, system_clock};
use waybill_telemetry::{SpanEvent, SpanKind, Status};

/// A step's name in spans and metrics.
pub(crate) fn step(step: Step) -> &'static str {
    match step {
        Step::ValidatingCart => "validating_cart",
        Step::ProcessingPayment => "processing_payment",
        Step::CreatingOrder => "creating_order",
    }
}

fn part(name: &'static str, within: Option<usize>, Interval(begun, ended): Interval) -> Part {
    Part {
        name,
        kind: SpanKind::Internal,
        within,
        interval: (begun, ended),
        attributes: Vec::new(),
        events: Vec::new(),
        links: Vec::new(),
        status: Status::Unset,
        publishes: false,
    }
}

fn text(name: &'static str, value: &str) -> KeyValue {
    KeyValue::new(name, value.to_owned())
}

fn count(name: &'static str, value: usize) -> KeyValue {
    KeyValue::new(name, i64::try_from(value).unwrap_or(i64::MAX))
}

fn event(name: &'static str, time: Timestamp, attributes: Vec<KeyValue>) -> SpanEvent {
    SpanEvent { name: name.into(), time, attributes }
}

/// A failure as OpenTelemetry records it: status and an `exception` event.
fn fail(part: &mut Part, kind: &'static str, message: String) {
    let attributes = vec![KeyValue::new("exception.type", kind), KeyValue::new("exception.message", message.clone())];
    part.events.push(event("exception", part.interval.1, attributes));
    part.status = Status::Error(message);
}

/// `cart.validate` and what is in it; `reserved` is none where it did not come to that.
pub(crate) fn validated(
    till: &Till,
    request: &CheckoutRequested,
    lines: &[CartLine],
    reserved: Option<&Reserved>,
    saga: &Saga,
) -> Details {
    let now = system_clock();
    let mut validate = part("cart.validate", None, Interval(till.fetched.0, now));
    validate.attributes = vec![text("cart.id", &request.cart_id), text("user.id", &request.customer_id)];
    let mut fetch = part("cart.fetch_contents", Some(0), till.fetched);
    fetch.attributes.push(count("cart.item_count", lines.len()));
    let verify = verified(lines, till.fetched.1);
    let mut details = Details::default();
    if lines.is_empty() {
        fail(&mut validate, "no_such_cart", "the cart is empty, or is not this customer's".to_owned());
    } else if matches!(reserved, Some(Reserved::Held { .. })) {
        details.events.push(("cart_validated", vec![count("cart.item_count", lines.len())]));
    } else {
        fail(&mut validate, "cart_invalid", "the cart cannot be bought as it is".to_owned());
    }
    if let Some(Reserved::Held { reservations, .. }) = reserved
        && let Some(first) = reservations.first()
    {
        validate.attributes.push(text("inventory.reservation_id", &first.id.to_string()));
    }
    details.parts = vec![validate, fetch, verify];
    if let Some(reserved) = reserved {
        details.parts.extend(reservations(saga, reserved, Interval(till.locked.0, now)));
    }
    details.attributes = process(request, saga);
    details
}

fn verified(lines: &[CartLine], time: Timestamp) -> Part {
    let mut verify = part("cart.verify_prices", Some(0), Interval(time, time));
    let stale: Vec<&CartLine> = lines.iter().filter(|line| line.price != Some(line.bought.price)).collect();
    verify.attributes.push(count("cart.stale_prices", stale.len()));
    for line in stale {
        let actual = line.price.map_or(-1, |price| price.amount);
        let attributes = vec![
            text("product.id", &line.bought.line.product_id),
            KeyValue::new("price.expected", line.bought.price.amount),
            KeyValue::new("price.actual", actual),
        ];
        verify.events.push(event("price_mismatch", time, attributes));
    }
    verify
}

/// `inventory.reserve_batch` and its items: one statement reserves all, so they share its interval.
fn reservations(saga: &Saga, reserved: &Reserved, interval: Interval) -> Vec<Part> {
    let mut batch = part("inventory.reserve_batch", Some(0), interval);
    let made = match reserved {
        Reserved::Held { reservations, .. } => reservations.len(),
        Reserved::Insufficient(_) => 0,
    };
    batch.attributes =
        vec![count("inventory.item_count", saga.lines.len()), count("inventory.reservations_created", made)];
    let items = saga.lines.iter().map(|bought| {
        let mut item = part("inventory.reserve_item", Some(0), interval);
        item.attributes = vec![
            text("product.id", &bought.line.product_id),
            KeyValue::new("quantity.requested", i64::from(bought.line.quantity)),
        ];
        match reserved {
            Reserved::Held { reservations, .. } => {
                let reservation = reservations.iter().find(|r| r.product_id == bought.line.product_id);
                item.attributes.extend(reservation.map(|r| text("reservation.id", &r.id.to_string())));
            }
            Reserved::Insufficient(shortages) => {
                if let Some(short) = shortages.iter().find(|s| s.product_id == bought.line.product_id) {
                    let attributes =
                        vec![KeyValue::new("available", short.available), KeyValue::new("requested", short.requested)];
                    item.events.push(event("insufficient_stock", interval.1, attributes));
                    item.status = Status::Error("insufficient stock".to_owned());
                }
            }
        }
        item
    });
    let items: Vec<Part> = items.collect();
    if let Reserved::Insufficient(_) = reserved {
        fail(&mut batch, "insufficient_stock", "not every line can be held, so none is".to_owned());
    }
    std::iter::once(batch).chain(items).collect()
}

/// Attributes of `checkout.process`.
fn process(request: &CheckoutRequested, saga: &Saga) -> Vec<KeyValue> {
    let mut attributes = vec![
        text("order.id", &request.order_id),
        text("cart.id", &request.cart_id),
        text("user.id", &request.customer_id),
        KeyValue::new("checkout.item_count", i64::from(saga.item_count)),
    ];
    if let Some(total) = &saga.total {
        attributes.push(KeyValue::new("checkout.total", total.amount_minor));
        attributes.push(text("checkout.currency", &total.currency));
    }
    attributes
}

/// `checkout.compensate` after the checkout: what the warehouse did not find is paid back.
pub(crate) fn paid_back(order_id: &str, saga: &Saga, answer: &PaymentAnswer) -> Details {
    let mut details = paying(order_id, saga, answer);
    details.attributes = vec![
        text("order.id", order_id),
        KeyValue::new("compensation.released", 0_i64),
        KeyValue::new(
            "compensation.refunded",
            matches!(&answer.what, Answered::Refunded(a) if matches!(a.answer, Refunded::Succeeded { .. })),
        ),
    ];
    details
}

/// `payment.process` and the call in it.
pub(crate) fn payment(request: &CheckoutRequested, saga: &Saga, answer: &PaymentAnswer) -> Details {
    Details { attributes: process(request, saga), ..paying(&request.order_id, saga, answer) }
}

fn paying(order_id: &str, saga: &Saga, answer: &PaymentAnswer) -> Details {
    let interval = Interval(answer.began, answer.ended);
    let mut process_payment = part("payment.process", None, interval);
    process_payment.kind = SpanKind::Client;
    process_payment.attributes = vec![text("order.id", order_id), KeyValue::new("payment.method_type", "card")];
    if let Some(total) = &saga.total {
        process_payment.attributes.push(KeyValue::new("payment.amount", total.amount_minor));
        process_payment.attributes.push(text("payment.currency", &total.currency));
    }
    let (call, said) = match &answer.what {
        Answered::Charged(Attempted { answer, call }) => (call, charged(answer)),
        Answered::Refunded(Attempted { answer, call }) => (call, refunded(answer)),
    };
    let mut details = Details::default();
    if let Some(charge_id) = &said.charge_id {
        process_payment.attributes.push(text("payment.charge_id", charge_id));
        details.events.push(("payment_processed", vec![text("payment.charge_id", charge_id)]));
    }
    if let Some(why) = &said.failure {
        fail(&mut process_payment, said.status, why.clone());
    }
    let call = call.as_ref().map(|call| gateway_call(call, saga, &said, interval));
    details.parts = std::iter::once(process_payment).chain(call).collect();
    details
}

/// An answer in the words of the span.
struct Said {
    status: &'static str,
    charge_id: Option<String>,
    decline_code: Option<String>,
    failure: Option<String>,
}

fn charged(answer: &Charged) -> Said {
    let failed = |status, decline_code, why| Said { status, charge_id: None, decline_code, failure: Some(why) };
    match answer {
        Charged::Succeeded { charge_id } => {
            Said { status: "succeeded", charge_id: Some(charge_id.clone()), decline_code: None, failure: None }
        }
        Charged::Declined { code, .. } => failed("declined", Some(code.clone()), format!("declined: {code}")),
        Charged::Refused { why } => failed("refused", None, why.clone()),
        Charged::Unknown { why, .. } => failed("unknown", None, why.clone()),
    }
}

fn refunded(answer: &Refunded) -> Said {
    let failed =
        |status, why: &String| Said { status, charge_id: None, decline_code: None, failure: Some(why.clone()) };
    match answer {
        Refunded::Succeeded { .. } => Said { status: "refunded", charge_id: None, decline_code: None, failure: None },
        Refunded::Refused { why } => failed("refused", why),
        Refunded::Unknown { why, .. } => failed("unknown", why),
    }
}

fn gateway_call(call: &Call, saga: &Saga, said: &Said, interval: Interval) -> Part {
    let mut part = part("payment.gateway_call", Some(0), interval);
    part.kind = SpanKind::Client;
    part.attributes = vec![
        KeyValue::new("peer.service", "stripe-api"),
        KeyValue::new("http.request.method", call.method),
        KeyValue::new("http.method", call.method),
        text("url.full", &call.url),
        text("http.url", &call.url),
        text("server.address", &call.server_address),
        KeyValue::new("payment.gateway_latency_ms", call.latency.as_secs_f64() * 1_000.0),
        KeyValue::new("payment.status", said.status),
        KeyValue::new("payment.attempt", i64::from(saga.attempt)),
    ];
    part.attributes.extend(call.status.map(|s| KeyValue::new("http.response.status_code", i64::from(s))));
    part.attributes.extend(said.charge_id.as_ref().map(|id| text("payment.charge_id", id)));
    if let Some(why) = &said.failure {
        part.attributes.push(text("payment.decline_code", said.decline_code.as_deref().unwrap_or("unknown")));
        fail(&mut part, said.status, why.clone());
    }
    part
}

/// The order is created: `order.create`, then `checkout.complete`, from which its journey begins.
pub(crate) fn completed(till: &Till, request: &CheckoutRequested, saga: &Saga, span: &mut Details) {
    let interval = Interval(till.locked.0, system_clock());
    let attributes =
        vec![text("order.id", &request.order_id), KeyValue::new("order.item_count", i64::from(saga.item_count))];
    let mut create = part("order.create", None, interval);
    create.attributes.clone_from(&attributes);
    create.attributes.push(KeyValue::new("db.operation.name", "INSERT"));
    create.attributes.push(KeyValue::new("db.collection.name", "checkouts"));
    let mut complete = part("checkout.complete", None, Interval(interval.1, interval.1));
    complete.kind = SpanKind::Producer;
    complete.attributes = attributes;
    complete.publishes = true;
    span.parts.extend([create, complete]);
    span.events.push(("order_created", vec![text("order.id", &request.order_id)]));
    span.attributes.push(KeyValue::new("checkout.step", "complete"));
}

/// The checkout came to nothing: `checkout.compensate` where something was undone.
pub(crate) fn rejected(till: &Till, request: &CheckoutRequested, saga: &Saga, released: usize, span: &mut Details) {
    let failure_step = KeyValue::new("checkout.failure_step", step(saga.step));
    span.attributes.push(KeyValue::new("checkout.step", step(saga.step)));
    span.attributes.push(failure_step.clone());
    span.status = Status::Error(format!("failed at {}", step(saga.step)));
    // A charge that is known and rejected all the same was refunded before.
    let refunded = saga.charge_id.is_some();
    if released == 0 && !refunded {
        return;
    }
    let index = span.parts.len();
    let interval = Interval(till.locked.0, system_clock());
    let mut compensate = part("checkout.compensate", None, interval);
    compensate.attributes = vec![
        text("order.id", &request.order_id),
        failure_step,
        count("compensation.released", released),
        KeyValue::new("compensation.refunded", refunded),
    ];
    span.parts.push(compensate);
    if released > 0 {
        span.parts.push(part("inventory.release", Some(index), interval));
    }
    if refunded {
        span.parts.push(part("payment.refund", Some(index), interval));
    }
}
