//! How ids, flags and attribute values are written in JSON.

use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
use opentelemetry::{Array, KeyValue, StringValue, Value};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serializer, ser::SerializeMap};
use std::borrow::Cow;

pub(crate) fn trace_id<S: Serializer>(id: &TraceId, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(id)
}

pub(crate) fn span_id<S: Serializer>(id: &SpanId, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(id)
}

pub(crate) fn flags<S: Serializer>(flags: &TraceFlags, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&format_args!("{flags:02x}"))
}

fn is_lower_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) fn parse_trace_id(text: &str) -> Option<TraceId> {
    let id = is_lower_hex(text, 32).then(|| TraceId::from_hex(text).ok()).flatten()?;
    (id != TraceId::INVALID).then_some(id)
}

pub(crate) fn parse_span_id(text: &str) -> Option<SpanId> {
    let id = is_lower_hex(text, 16).then(|| SpanId::from_hex(text).ok()).flatten()?;
    (id != SpanId::INVALID).then_some(id)
}

pub(crate) fn parse_flags(text: &str) -> Option<TraceFlags> {
    is_lower_hex(text, 2).then(|| u8::from_str_radix(text, 16).ok()).flatten().map(TraceFlags::new)
}

/// Text that is borrowed wherever it can be: as a field, not in a list.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

macro_rules! strict {
    ($name:ident, $type:ty, $parse:ident) => {
        pub(crate) fn $name<'de, D: Deserializer<'de>>(d: D) -> Result<$type, D::Error> {
            let Text(text) = Text::deserialize(d)?;
            $parse(&text).ok_or_else(|| D::Error::custom(concat!("not a valid ", stringify!($type))))
        }
    };
}
strict!(read_trace_id, TraceId, parse_trace_id);
strict!(read_span_id, SpanId, parse_span_id);
strict!(read_flags, TraceFlags, parse_flags);

/// Ids as the text that they are, which is looked at all the same.
pub(crate) mod text {
    use super::{Cow, Deserialize, Deserializer, Error, Text, is_lower_hex};

    pub(crate) fn trace_id<'de, D: Deserializer<'de>>(d: D) -> Result<Cow<'de, str>, D::Error> {
        id(d, 32, "not a valid TraceId")
    }

    pub(crate) fn span_id<'de, D: Deserializer<'de>>(d: D) -> Result<Cow<'de, str>, D::Error> {
        id(d, 16, "not a valid SpanId")
    }

    pub(crate) fn parent<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Cow<'de, str>>, D::Error> {
        span_id(d).map(Some)
    }

    pub(crate) fn flags<'de, D: Deserializer<'de>>(d: D) -> Result<Cow<'de, str>, D::Error> {
        let Text(text) = Text::deserialize(d)?;
        if is_lower_hex(&text, 2) { Ok(text) } else { Err(D::Error::custom("not a valid TraceFlags")) }
    }

    fn id<'de, D: Deserializer<'de>>(d: D, len: usize, why: &str) -> Result<Cow<'de, str>, D::Error> {
        let Text(text) = Text::deserialize(d)?;
        let valid = is_lower_hex(&text, len) && text.bytes().any(|digit| digit != b'0');
        if valid { Ok(text) } else { Err(D::Error::custom(why)) }
    }
}

/// A span id that may be missing.
pub(crate) mod optional_span_id {
    use super::{Deserializer, Serializer, SpanId, read_span_id};

    pub(crate) fn serialize<S: Serializer>(id: &Option<SpanId>, s: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => s.collect_str(id),
            None => s.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SpanId>, D::Error> {
        read_span_id(d).map(Some)
    }
}

/// Attributes as a JSON object; booleans, integers, floats and strings keep their type.
pub(crate) mod attributes {
    use super::{Array, Deserialize, Deserializer, Error, KeyValue, SerializeMap, Serializer, StringValue, Value};

    pub(crate) fn serialize<S: Serializer>(list: &[KeyValue], s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(list.len()))?;
        for KeyValue { key, value, .. } in list {
            match value {
                Value::Bool(v) => map.serialize_entry(key.as_str(), v)?,
                Value::I64(v) => map.serialize_entry(key.as_str(), v)?,
                Value::F64(v) => map.serialize_entry(key.as_str(), v)?,
                Value::String(v) => map.serialize_entry(key.as_str(), v.as_str())?,
                Value::Array(Array::String(v)) => {
                    let texts: Vec<&str> = v.iter().map(StringValue::as_str).collect();
                    map.serialize_entry(key.as_str(), &texts)?;
                }
                // No attribute of the contract is an array of another type.
                other => map.serialize_entry(key.as_str(), &other.as_str())?,
            }
        }
        map.end()
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<KeyValue>, D::Error> {
        use serde_json::{Map, Value as Json};
        let map = Map::<String, Json>::deserialize(d)?;
        map.into_iter()
            .map(|(key, value)| {
                let value = match value {
                    Json::Bool(v) => Value::Bool(v),
                    Json::Number(v) => match (v.as_i64(), v.as_f64()) {
                        (Some(i), _) => Value::I64(i),
                        (None, Some(f)) => Value::F64(f),
                        (None, None) => return Err(D::Error::custom(format!("{key}: number out of range"))),
                    },
                    Json::String(v) => Value::String(v.into()),
                    Json::Array(v) => {
                        let texts = v.into_iter().filter_map(|t| t.as_str().map(|t| t.to_owned().into()));
                        Value::Array(Array::String(texts.collect()))
                    }
                    Json::Null | Json::Object(_) => {
                        return Err(D::Error::custom(format!("{key}: not an attribute value")));
                    }
                };
                Ok(KeyValue::new(key, value))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyValue, attributes};

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Span(#[serde(with = "attributes")] Vec<KeyValue>);

    proptest::proptest! {
        #[test]
        fn a_number_is_kept_to_its_last_digit(number in proptest::num::f64::NORMAL) {
            let list = vec![KeyValue::new("payment.gateway_latency_ms", number)];
            let text = serde_json::to_string(&Span(list.clone())).unwrap();
            proptest::prop_assert_eq!(serde_json::from_str::<Span>(&text).unwrap().0, list);
        }
    }
}
