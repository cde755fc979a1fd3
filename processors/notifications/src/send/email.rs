//! Mails, and what a mail server's answer means for the people they are for.

use super::Verdict;
use super::part::Notice;
use super::people::Reach;
use super::settings::Shop;
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::Instant;
use url::Url;
use waybill_mail::unsubscribe::Unsubscribe;
use waybill_mail::{Answer, BackInStock, Composer, Content, Draft, Mailbox, Product, Settings, Smtp, Templates};

/// What a step of a mail server may take. A call has to end while its record is leased, so a longer `mail.timeout` is cut.
const LONGEST_STEP: Duration = Duration::from_secs(12);

/// Writes mails and sends them.
#[derive(Debug)]
pub struct Mailer {
    smtp: Smtp,
    composer: Composer,
    templates: Templates,
    unsubscribe: Option<Unsubscribe>,
}

/// Why no mails can be sent.
#[derive(Debug, thiserror::Error)]
pub enum MailerError {
    /// `mail`: a setting does not work.
    #[error("mail")]
    Settings(#[from] waybill_mail::SettingsError),
    /// `mail.templates`: a template does not work.
    #[error("mail.templates")]
    Templates(#[from] waybill_mail::TemplateError),
    /// `unsubscribe`: a setting does not work.
    #[error("unsubscribe: mails of campaigns have a link that ends the subscription")]
    Unsubscribe(#[from] waybill_mail::unsubscribe::SettingsError),
}

impl Mailer {
    /// For mails about orders.
    ///
    /// # Errors
    /// A setting does not work.
    pub fn new(settings: &Settings) -> Result<Self, MailerError> {
        let settings = Settings { timeout: settings.timeout.min(LONGEST_STEP), ..settings.clone() };
        Ok(Mailer {
            smtp: Smtp::new(&settings)?,
            composer: Composer::new(&settings)?,
            templates: Templates::load(settings.templates.as_deref())?,
            unsubscribe: None,
        })
    }

    /// For mails of campaigns, too, which have a link that ends the subscription.
    ///
    /// # Errors
    /// A setting does not work.
    pub fn with_links(self, settings: &waybill_mail::unsubscribe::Settings) -> Result<Self, MailerError> {
        Ok(Mailer { unsubscribe: Some(Unsubscribe::new(settings)?), ..self })
    }

    /// Tells somebody that a product is back.
    pub(super) async fn tell(
        &self,
        shop: &Shop,
        notice: &Notice,
        subscription_id: i64,
        reach: &Reach,
        until: Instant,
    ) -> Verdict {
        let link = self.unsubscribe.as_ref().and_then(|keys| keys.link(&subscription_id.to_string()).ok());
        let Some(link) = link else {
            return Verdict::Refused("there is no link that ends the subscription".to_owned());
        };
        let content = Content::BackInStock(BackInStock {
            shop: shop.name.clone(),
            customer: reach.name.clone(),
            product: Product {
                name: notice.product.name.clone(),
                url: shop.product(&notice.product_id),
                price: notice.product.price,
            },
            unsubscribe_url: link.to_string(),
        });
        let delivery = format!("{}-{subscription_id}", notice.campaign_id);
        self.deliver(&delivery, reach, notice.date, Some(&link), &content, until).await
    }

    /// Sends a mail, if a connection is free until `until`. `delivery` and `date` are kept over repeats.
    pub(super) async fn deliver(
        &self,
        delivery: &str,
        reach: &Reach,
        date: Timestamp,
        unsubscribe: Option<&Url>,
        content: &Content,
        until: Instant,
    ) -> Verdict {
        let Ok(address) = reach.place.parse() else { return Verdict::Dead("this is no address".to_owned()) };
        let to = Mailbox { address, name: reach.name.clone() };
        let texts = match self.templates.render(content) {
            Ok(texts) => texts,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        match self.composer.compose(Draft { delivery, to: &to, date, unsubscribe, texts }) {
            Ok(message) => verdict(self.smtp.send(message, until).await),
            Err(error) => Verdict::Refused(error.to_string()),
        }
    }
}

fn verdict(answer: Answer) -> Verdict {
    match answer {
        Answer::Sent { .. } => Verdict::Sent,
        Answer::Later { why, retry_after } => Verdict::Later { why, after: retry_after },
        Answer::SlowDown { why, wait } => Verdict::Closed { why, wait },
        Answer::Refused { reply, suppress: true } => Verdict::Dead(reply.to_string()),
        Answer::Refused { reply, suppress: false } => Verdict::Refused(reply.to_string()),
        Answer::Unknown { why } => Verdict::Unknown(why),
    }
}
