//! Temporary while the real module is on its way.
use waybill_events::Service;
pub struct Carrier {
    pub name: &'static str,
}
pub struct Quote {
    pub carrier: &'static Carrier,
    pub cost_minor: i64,
    pub business_days: u32,
}
static C: Carrier = Carrier { name: "x" };
pub fn cheapest(_: &[(u32, [u32; 3])], _: &str, _: Service) -> Option<Quote> {
    Some(Quote { carrier: &C, cost_minor: 1, business_days: 1 })
}
impl Carrier {
    pub fn tracking_number(&self, serial: u64) -> String {
        serial.to_string()
    }
    pub fn label(&self, t: &str, _: &str, _: u32, _: u32, _: u32, _: &str) -> String {
        t.to_owned()
    }
}
pub fn is_valid_tracking_number(_: &str) -> bool {
    true
}
pub fn delivery_date(t: jiff::Timestamp, _: u32) -> jiff::civil::Date {
    t.to_zoned(jiff::tz::TimeZone::UTC).date()
}
