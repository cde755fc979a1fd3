//! Rules that every order event keeps.

use waybill_telemetry::{MAX_STAMPS, Waybill};

/// Most lines of an order.
pub const MAX_LINES: usize = 200;
/// Most units of one line.
pub const MAX_QUANTITY: u32 = 1_000;
/// Most units of an order: bounds the work of packing it.
pub const MAX_UNITS: u32 = 2_000;

/// Whether a text can be an id: 1 to 64 characters of `A–Z a–z 0–9 _ . -`. Ids reach table keys, headers and
/// metrics, so nothing else gets in.
#[must_use]
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

pub(crate) fn id(field: &str, text: &str) -> Result<(), String> {
    if is_id(text) {
        return Ok(());
    }
    Err(format!("{field} must be 1 to 64 characters of A-Z a-z 0-9 _ . -"))
}

pub(crate) fn country(text: &str) -> Result<(), String> {
    if text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase()) {
        return Ok(());
    }
    Err("country must be two capital letters (ISO 3166-1 alpha-2)".to_owned())
}

pub(crate) fn between(field: &str, value: u32, low: u32, high: u32) -> Result<(), String> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(format!("{field} must be from {low} to {high}, not {value}"))
}

pub(crate) fn count(field: &str, found: usize, most: usize) -> Result<(), String> {
    if (1..=most).contains(&found) {
        return Ok(());
    }
    Err(format!("{field}: there must be 1 to {most} of them, not {found}"))
}

/// Line numbers tell lines apart, so each stands once.
pub(crate) fn distinct(lines: impl Iterator<Item = u32>) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for line in lines {
        if !seen.insert(line) {
            return Err(format!("line {line} stands twice"));
        }
    }
    Ok(())
}

pub(crate) fn units(quantities: impl Iterator<Item = u32>) -> Result<(), String> {
    let units: u64 = quantities.map(u64::from).sum();
    if units <= u64::from(MAX_UNITS) {
        return Ok(());
    }
    Err(format!("the order has {units} units; at most {MAX_UNITS} are packed as one order"))
}

pub(crate) fn waybill(waybill: &Waybill) -> Result<(), String> {
    let stamps = waybill.stamps().len() + waybill.malformed;
    if stamps <= MAX_STAMPS {
        return Ok(());
    }
    Err(format!("the waybill has {stamps} stamps; at most {MAX_STAMPS} can be linked"))
}
