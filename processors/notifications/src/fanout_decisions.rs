//! Given, when, then: what fanout says to what it hears.

use super::*;
use serde_json::json;

fn back() -> News {
    let restocked = json!({"product_id": "p", "zero_version": 3, "version": 4, "available": 5,
        "restocked_at": "2026-11-22T07:00:00Z", "tell_at": "2026-11-22T07:00:00Z"});
    News::read(Restocked::SCHEMA, restocked.to_string().as_bytes()).unwrap()
}

fn results(batch: &str, campaign: &str) -> News {
    let results = json!({"batch_id": batch, "campaign_id": campaign, "product_id": "p", "sold_out": false,
        "people": [{"subscription_id": 1, "user_id": "u-1", "result": "sent"}]});
    News::read(EmailResults::SCHEMA, results.to_string().as_bytes()).unwrap()
}

fn said(kept: Option<&Kept>, news: &News) -> String {
    match Fanout::default().decide(&mut Taken::default(), kept, news, Timestamp::UNIX_EPOCH) {
        Outcome::Call { state: Kept::Campaign(campaign), call, wait, .. } => {
            assert_eq!((&campaign, Duration::ZERO), (&call.campaign, wait), "the call is the state's");
            format!("step {} at {}", campaign.step, campaign.wave.not_before)
        }
        Outcome::Keep(Kept::Taken) => "taken".to_owned(),
        Outcome::Repeat => "repeated".to_owned(),
        Outcome::Reject(refusal) => refusal.reason.to_owned(),
        _ => "something else".to_owned(),
    }
}

#[test]
fn a_restock_begins_its_campaign_once_and_results_are_taken_once() {
    let News::Back { subject, restocked } = back() else { panic!("no restock") };
    let campaign = Campaign { step: 9, ..Campaign::of(&restocked) };
    let running = Kept::Campaign(campaign.clone());
    let ended = Kept::Campaign(Campaign { doing: Doing::Ended, ..campaign });
    let of_batch = results("c.7", "c");
    let table = [
        ("new", None, back(), "step 1 at 2026-11-22T07:00:00Z"),
        ("a record that came twice, the campaign running", Some(&running), back(), "step 9 at 2026-11-22T07:00:00Z"),
        ("a replay", Some(&ended), back(), "repeated"),
        ("results", None, of_batch.clone(), "taken"),
        ("results again", Some(&Kept::Taken), of_batch, "repeated"),
        ("results before their restock, out of order", None, results("c.8", "c"), "taken"),
        ("results of another campaign", None, results("c.7", "d"), "unknown_batch"),
        ("results of no batch", None, results("c.x", "c"), "unknown_batch"),
    ];
    for (name, kept, news, expected) in table {
        assert_eq!(said(kept, &news), expected, "{name}");
    }
    assert_eq!((subject.as_str(), back().key()), ("p/3", "p"));
    assert_eq!(results("c.7", "c").key(), results("c.7", "c").subject());
}

#[test]
fn the_id_of_a_campaign_is_that_of_its_restock_for_ever() {
    let id = crate::campaign::campaign_id("p/3");
    assert_eq!(id, crate::campaign::campaign_id("p/3"));
    assert_ne!(id, crate::campaign::campaign_id("p/4"));
    assert_eq!(id, "169405ac-a9e1-522d-b13b-0ae62790b48e");
    assert_eq!(numbered(&format!("{id}.12")), Some((id.as_str(), 12)));
}

#[test]
fn a_campaign_that_ended_tells_what_it_came_to() {
    let News::Back { restocked, .. } = back() else { panic!("no restock") };
    let kept = Kept::Campaign(Campaign::of(&restocked));
    let outcome =
        Fanout::default().settle(&mut Taken::default(), Some(&kept), &back(), &Looked::SoldOut, Timestamp::UNIX_EPOCH);
    let Outcome::Emit(decision) = outcome else { panic!("it goes on") };
    assert!(decision.events.is_empty());
    let told: Vec<String> = decision.span.attributes.iter().map(|a| format!("{}={}", a.key, a.value)).collect();
    let expected = [
        "product.id=p",
        "inventory.new_quantity=5",
        "notification.subscriber_count=0",
        "notification.skipped=true",
        "notification.batch_count=0",
        "notification.sent_count=0",
        "notification.error_count=0",
    ];
    assert_eq!(told, expected);
}

#[test]
fn settings_are_read_and_those_that_do_not_work_are_named() {
    let read = |json: &str| serde_json::from_str::<FanoutSettings>(json).unwrap();
    assert_eq!(FanoutSettings::default().check(), Ok(()));
    assert_eq!(read(r#"{"factor": "all"}"#).factor, Factor::All);
    assert_eq!(read(r#"{"factor": 5}"#).factor, Factor::Times(5));
    assert_eq!((Factor::Times(3).of(40), Factor::All.of(1)), (120, i64::MAX));
    for (json, expected) in [
        (r#"{"factor": 0}"#, FanoutSettingsError::Factor),
        (r#"{"pause": "-1s"}"#, FanoutSettingsError::Pause),
        (r#"{"spacing": "-1s"}"#, FanoutSettingsError::Spacing),
        (r#"{"portion": 99}"#, FanoutSettingsError::Portion),
    ] {
        assert_eq!(read(json).check(), Err(expected), "{json}");
    }
    assert!(serde_json::from_str::<FanoutSettings>(r#"{"factor": "some"}"#).is_err());
}
