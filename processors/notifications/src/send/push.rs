//! Push messages, and what a push service's answer means for the people they are for.

use super::Verdict;
use super::part::Notice;
use super::people::Reach;
use super::settings::Shop;
use crate::push_targets::PushTarget;
use std::time::Duration;
use waybill_push::{Answer, Fault, Message, Push, Urgency};

/// How long a push service keeps a message for a device that is away: by then the product may be gone again.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long to leave a service alone that does not let us in.
const MEND: Duration = Duration::from_secs(60);

/// Tells a device that a product is back.
pub(super) async fn tell(push: &Push, shop: &Shop, notice: &Notice, reach: &Reach) -> Verdict {
    // Whoever wrote what we cannot read has made a mistake: no reason to forget somebody's device.
    let Some(target) = PushTarget::read(&reach.place).and_then(|device| device.target().ok()) else {
        return Verdict::Refused("this is no device".to_owned());
    };
    let message = Message {
        title: notice.product.name.clone(),
        body: format!("Back in stock at {}, for {}", shop.name, notice.product.price),
        url: shop.product(&notice.product_id),
        topic: Some(notice.campaign_id.clone()),
        ttl: KEPT,
        urgency: Urgency::Normal,
    };
    let attempted = push.send(&target, &message).await;
    match attempted.answer {
        Answer::Sent => Verdict::Sent,
        Answer::Gone => Verdict::Dead("the device is gone".to_owned()),
        Answer::Later { why, retry_after } => Verdict::Later { why, after: retry_after },
        // The service was asked, and does not let us in: that is mended, and then it may go.
        Answer::Refused { fault: Fault::Setup, why } if attempted.call.is_some() => {
            Verdict::Later { why, after: Some(MEND) }
        }
        Answer::Refused { fault: Fault::Message | Fault::Target | Fault::Setup, why } => Verdict::Refused(why),
        Answer::Unknown { why } => Verdict::Unknown(why),
    }
}
