//! W3C trace contexts and the waybill, as records carry them.

use crate::record::SpanLink;
use crate::wire;
use jiff::Timestamp;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId};
use opentelemetry::{Context, baggage::BaggageExt};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The `link.type` of links to stamps.
pub(crate) const FOLLOWS_FROM: &str = "follows_from";

/// Bytes that the name of a stage may have on a stamp.
pub(crate) const MAX_STAGE: usize = 64;

/// The W3C `traceparent` of a span, version 00.
#[must_use]
pub fn traceparent(trace_id: TraceId, span_id: SpanId, flags: TraceFlags) -> String {
    format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}")
}

/// One stage's span on an order's waybill: which stage, which span, when (UTC).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stamp {
    /// The stage, for example `pick`.
    pub stage: Cow<'static, str>,
    /// The stage span's trace.
    #[serde(serialize_with = "wire::trace_id")]
    pub trace_id: TraceId,
    /// The stage span.
    #[serde(serialize_with = "wire::span_id")]
    pub span_id: SpanId,
    /// W3C trace flags; bit 0 says sampled.
    #[serde(serialize_with = "wire::flags")]
    pub trace_flags: TraceFlags,
    /// When the stage began to work on the order.
    pub started_at: Timestamp,
    /// When it had decided, just before its event was written.
    pub ended_at: Timestamp,
}

/// The ordered list of the spans of all stages an order has gone through.
///
/// Reading is lenient: a stamp that is not a valid span context is left out and counted in
/// [`Waybill::malformed`], since a bad context loses its link and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Waybill {
    stamps: Vec<Stamp>,
    /// Stamps that were left out on reading.
    #[serde(skip)]
    pub malformed: usize,
}

impl Waybill {
    /// Without a stamp.
    #[must_use]
    pub const fn none() -> Self {
        Waybill { stamps: Vec::new(), malformed: 0 }
    }

    /// The stamps, oldest first.
    #[must_use]
    pub fn stamps(&self) -> &[Stamp] {
        &self.stamps
    }

    /// Adds the span of the stage that just finished.
    pub fn push(&mut self, stamp: Stamp) {
        self.stamps.push(stamp);
    }

    /// Links to every stamped span, `link.type` = `follows_from`.
    pub fn links(&self) -> impl Iterator<Item = SpanLink> {
        self.stamps.iter().map(|s| SpanLink::new(s.trace_id, s.span_id, s.trace_flags, FOLLOWS_FROM, s.stage.clone()))
    }
}

impl<'de> Deserialize<'de> for Waybill {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        // As one where every type is right, which is nearly always; else stamp by stamp.
        let found: Vec<Option<RawStamp>> = match serde_json::from_str::<Vec<RawStamp>>(json.get()) {
            Ok(stamps) => stamps.into_iter().map(Some).collect(),
            Err(_) => match serde_json::from_str::<Vec<&RawValue>>(json.get()) {
                Ok(stamps) => stamps.into_iter().map(|stamp| serde_json::from_str(stamp.get()).ok()).collect(),
                Err(_) => vec![None],
            },
        };
        let count = found.len();
        let stamps: Vec<Stamp> = found.into_iter().filter_map(|stamp| stamp?.check()).collect();
        Ok(Waybill { malformed: count - stamps.len(), stamps })
    }
}

#[derive(Deserialize)]
#[serde(default)]
struct RawStamp<'a> {
    #[serde(borrow)]
    stage: Cow<'a, str>,
    #[serde(borrow)]
    trace_id: Cow<'a, str>,
    #[serde(borrow)]
    span_id: Cow<'a, str>,
    #[serde(borrow)]
    trace_flags: Cow<'a, str>,
    #[serde(borrow)]
    started_at: Cow<'a, str>,
    #[serde(borrow)]
    ended_at: Cow<'a, str>,
}

impl Default for RawStamp<'_> {
    fn default() -> Self {
        let none = || Cow::Borrowed("");
        RawStamp {
            stage: none(),
            trace_id: none(),
            span_id: none(),
            trace_flags: none(),
            started_at: none(),
            ended_at: none(),
        }
    }
}

impl RawStamp<'_> {
    fn check(self) -> Option<Stamp> {
        let stamp = Stamp {
            trace_id: wire::parse_trace_id(&self.trace_id)?,
            span_id: wire::parse_span_id(&self.span_id)?,
            trace_flags: wire::parse_flags(&self.trace_flags)?,
            started_at: self.started_at.parse().ok()?,
            ended_at: self.ended_at.parse().ok()?,
            stage: Cow::Owned(self.stage.into_owned()),
        };
        (!stamp.stage.is_empty() && stamp.stage.len() <= MAX_STAGE).then_some(stamp)
    }
}

/// Headers that can be read by name: the first valid UTF-8 value of a name counts.
pub trait Carrier {
    /// The value of the header `name`, if it stands there and is UTF-8.
    fn header(&self, name: &str) -> Option<&str>;
}

struct Extract<'a, C>(&'a C);

impl<C: Carrier> Extractor for Extract<'_, C> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.header(key)
    }
    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// The contexts that came with a record.
#[derive(Clone, Debug, Default)]
pub struct Incoming {
    /// The span that produced the record (`traceparent`, `tracestate`); `None` where absent or malformed.
    pub producer: Option<SpanContext>,
    /// `ce_traceparent`: where the journey started; passed on unchanged.
    pub origin: Option<String>,
    /// What of `baggage` the allow-list lets through; passed on, never an attribute.
    pub baggage: Option<String>,
    /// Contexts that were present but malformed, and so ignored.
    pub malformed: usize,
}

impl Incoming {
    /// Reads the contexts of a record. `allowed_baggage` names the baggage entries passed on.
    pub fn read<C: Carrier>(carrier: &C, allowed_baggage: &[String]) -> Self {
        let producer = parse(carrier);
        let mut malformed = usize::from(producer.is_none() && carrier.header("traceparent").is_some());
        let origin = match carrier.header("ce_traceparent") {
            None => None,
            Some(value) if parse(&One("traceparent", value)).is_some() => Some(value.to_owned()),
            Some(_) => {
                malformed += 1;
                None
            }
        };
        Incoming { producer, origin, baggage: baggage(carrier, allowed_baggage), malformed }
    }

    /// Whether the journey is recorded, as was decided where it began; `None` where no record of it says so.
    #[must_use]
    pub fn recorded(&self) -> Option<bool> {
        // Checked on reading: version 00 has its flags at the end.
        let sampled = |origin: &String| wire::parse_flags(origin.get(53..55)?).map(|flags| flags.is_sampled());
        let origin = self.origin.as_ref().and_then(sampled);
        origin.or_else(|| self.producer.as_ref().map(SpanContext::is_sampled))
    }
}

struct One<'a>(&'a str, &'a str);

impl Carrier for One<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        (name == self.0).then_some(self.1)
    }
}

fn parse<C: Carrier>(carrier: &C) -> Option<SpanContext> {
    let header = carrier.header("traceparent")?;
    // W3C Trace Context §3.2.2: version 00 is exactly 55 characters long; the SDK also takes shorter flags.
    if header.starts_with("00-") && header.len() != 55 {
        return None;
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Extract(carrier));
    let span = context.span().span_context().clone();
    span.is_valid().then_some(span)
}

fn baggage<C: Carrier>(carrier: &C, allowed: &[String]) -> Option<String> {
    if allowed.is_empty() || carrier.header("baggage").is_none() {
        return None;
    }
    let propagator = BaggagePropagator::new();
    let all = propagator.extract_with_context(&Context::new(), &Extract(carrier));
    let kept = all.baggage().iter().filter(|(key, _)| allowed.iter().any(|a| a == key.as_str()));
    let kept = Context::new()
        .with_baggage(kept.map(|(key, (value, _))| opentelemetry::KeyValue::new(key.clone(), value.clone())));
    let mut out = Written(None);
    propagator.inject_context(&kept, &mut out);
    out.0
}

struct Written(Option<String>);

impl Injector for Written {
    fn set(&mut self, _key: &str, value: String) {
        self.0 = Some(value).filter(|v| !v.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Headers(Vec<(&'static str, &'static str)>);
    impl Carrier for Headers {
        fn header(&self, name: &str) -> Option<&str> {
            self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
        }
    }

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written_alike() {
        let read = Incoming::read(&Headers(vec![("traceparent", GOOD), ("ce_traceparent", GOOD)]), &[]);
        let span = read.producer.clone().unwrap();
        assert_eq!(traceparent(span.trace_id(), span.span_id(), span.trace_flags()), GOOD);
        assert_eq!(read.origin.as_deref(), Some(GOOD));
        assert_eq!(read.malformed, 0);
        assert_eq!(read.recorded(), Some(true));
    }

    #[test]
    fn whether_a_journey_is_recorded_was_decided_where_it_began() {
        let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        for (headers, expected) in [
            (vec![("traceparent", unsampled), ("ce_traceparent", GOOD)], Some(true)),
            (vec![("traceparent", GOOD), ("ce_traceparent", unsampled)], Some(false)),
            (vec![("traceparent", unsampled)], Some(false)),
            (vec![("traceparent", GOOD), ("ce_traceparent", "rubbish")], Some(true)),
            (vec![], None),
        ] {
            assert_eq!(Incoming::read(&Headers(headers.clone()), &[]).recorded(), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_malformed_context_is_ignored_and_counted() {
        for bad in ["", "rubbish", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", &GOOD[..54]] {
            let read =
                Incoming::read(&Headers(vec![("traceparent", bad.to_owned().leak()), ("ce_traceparent", "x")]), &[]);
            assert!(read.producer.is_none() && read.origin.is_none(), "{bad:?}");
            assert_eq!(read.malformed, 2, "{bad:?}");
        }
    }

    #[test]
    fn baggage_passes_through_an_allow_list() {
        let headers = Headers(vec![("baggage", "tenant=a,user=ada")]);
        assert_eq!(Incoming::read(&headers, &[]).baggage, None);
        assert_eq!(Incoming::read(&headers, &["tenant".into()]).baggage.as_deref(), Some("tenant=a"));
        assert_eq!(Incoming::read(&headers, &["other".into()]).baggage, None);
    }

    #[test]
    fn a_bad_stamp_loses_its_link_and_nothing_else() {
        let good = r#"{"stage":"checkout","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7","trace_flags":"01","started_at":"2026-11-21T10:00:00.000000001Z","ended_at":"2026-11-21T10:00:01Z"}"#;
        let bad = r#"{"stage":"pick","trace_id":"short","span_id":"00f067aa0ba902b7","trace_flags":"01","started_at":"x","ended_at":"x"}"#;
        let waybill: Waybill = serde_json::from_str(&format!("[{bad},{good},{{}}]")).unwrap();
        assert_eq!(waybill.stamps().len(), 1);
        assert_eq!(waybill.malformed, 2);
        assert_eq!(serde_json::to_string(&waybill).unwrap(), format!("[{good}]"));
        for (text, stamps, malformed) in [
            (format!(r#"[{good},{{"stage":5}},"x",7,null,[1],{good}]"#), 2, 5),
            (good.to_owned(), 0, 1),
            ("5".to_owned(), 0, 1),
            ("null".to_owned(), 0, 1),
            ("[]".to_owned(), 0, 0),
        ] {
            let waybill: Waybill = serde_json::from_str(&text).unwrap();
            assert_eq!((waybill.stamps().len(), waybill.malformed), (stamps, malformed), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_or_ignored_never_a_panic(text in ".{0,200}", state in ".{0,600}", baggage in ".{0,200}") {
            let headers = [("traceparent", text.clone()), ("tracestate", state), ("ce_traceparent", text), ("baggage", baggage)];
            let headers = Owned(headers);
            let read = Incoming::read(&headers, &["a".to_owned()]);
            proptest::prop_assert!(read.malformed <= 2);
        }
    }

    struct Owned([(&'static str, String); 4]);
    impl Carrier for Owned {
        fn header(&self, name: &str) -> Option<&str> {
            self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
        }
    }
}
