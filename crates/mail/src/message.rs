//! A mail as it is sent: headers and both bodies (RFC 5322, MIME).
//!
//! The same draft gives the same bytes: no clock, no chance. No text of a draft can add a header: names and subjects are
//! made one line, everything else is of a type that knows no line break.

use crate::address::{Address, Mailbox, one_line};
use crate::settings::{Settings, SettingsError};
use crate::templates::Rendered;
use jiff::Timestamp;
use lettre::address::Envelope;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Body, MultiPart, MultiPartKind, SinglePart};
use std::fmt;
use std::time::SystemTime;
use url::Url;

/// RFC 5322, 2.1.1.
const LONGEST_LINE: usize = 998;
/// The same, with some room for a header's name.
const LONGEST_LINK: usize = 900;
/// What the date's type can show.
const YEARS: std::ops::Range<i16> = 1971..9999;

/// What is to be sent, to one mailbox.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    /// One a delivery, kept over repeats: letters, digits, - and _. It becomes the Message-ID, by which mail servers and
    /// readers know a repeat.
    pub delivery: &'a str,
    /// To whom.
    pub to: &'a Mailbox,
    /// When the delivery was decided, kept over repeats.
    pub date: Timestamp,
    /// Ends the subscription by one click (RFC 8058); none on mails about an order.
    pub unsubscribe: Option<&'a Url>,
    /// The texts.
    pub texts: Rendered,
}

/// A draft that cannot become a mail.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// It would not be a Message-ID.
    #[error("a delivery's id has 1 to 128 letters, digits, - and _")]
    Delivery,
    /// Long ago, or in a far future.
    #[error("the date is not of a year from {} to {}", YEARS.start, YEARS.end - 1)]
    Date,
    /// RFC 8058 asks for https.
    #[error("the unsubscribe link is not http or https, or longer than {LONGEST_LINK} characters")]
    Unsubscribe,
    /// The library refuses it.
    #[error("the mail cannot be put together")]
    Message(#[source] lettre::error::Error),
}

/// A mail, ready to be sent. Its text is never printed.
#[derive(Clone)]
pub struct Message {
    pub(crate) from: Address,
    pub(crate) to: Address,
    id: String,
    pub(crate) text: String,
}

impl Message {
    /// The Message-ID, without its angle brackets.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// As it goes over the wire, but for what SMTP itself adds.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Puts mails together for one sender.
#[derive(Clone, Debug)]
pub struct Composer {
    from: Mailbox,
    reply_to: Option<Mailbox>,
}

impl Composer {
    /// For `from` and `replyto`.
    ///
    /// # Errors
    /// One of them is not a mailbox.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Composer { from: settings.sender()?, reply_to: settings.answers()? })
    }

    /// The mail of a draft.
    ///
    /// # Errors
    /// The draft cannot become a mail.
    pub fn compose(&self, draft: Draft<'_>) -> Result<Message, ComposeError> {
        if !crate::is_id(draft.delivery) {
            return Err(ComposeError::Delivery);
        }
        if !YEARS.contains(&draft.date.to_zoned(jiff::tz::TimeZone::UTC).year()) {
            return Err(ComposeError::Date);
        }
        let id = format!("{}@{}", draft.delivery, self.from.address.domain());
        let envelope = Envelope::new(Some(self.from.address.lettre()), vec![draft.to.address.lettre()]);
        let mut builder = lettre::Message::builder()
            // Given, or the library would read it back from the headers.
            .envelope(envelope.map_err(ComposeError::Message)?)
            .from(self.from.lettre())
            .to(draft.to.lettre())
            .subject(one_line(&draft.texts.subject))
            .date(SystemTime::from(draft.date))
            .message_id(Some(format!("<{id}>")))
            .raw_header(header("Auto-Submitted", "auto-generated".to_owned()));
        if let Some(reply_to) = &self.reply_to {
            builder = builder.reply_to(reply_to.lettre());
        }
        if let Some(link) = draft.unsubscribe {
            if !matches!(link.scheme(), "http" | "https") || link.as_str().len() > LONGEST_LINK {
                return Err(ComposeError::Unsubscribe);
            }
            builder = builder
                .raw_header(header("List-Unsubscribe", format!("<{link}>")))
                .raw_header(header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".to_owned()));
        }
        let message = builder.multipart(bodies(draft.delivery, draft.texts)).map_err(ComposeError::Message)?;
        let (from, to) = (self.from.address.clone(), draft.to.address.clone());
        // It is ASCII.
        let text = String::from_utf8(message.formatted())
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Ok(Message { from, to, id, text })
    }
}

/// The text first: readers show the last one they can (RFC 2046, 5.1.4).
fn bodies(delivery: &str, texts: Rendered) -> MultiPart {
    let part = |content_type, body: String| {
        let part = SinglePart::builder().header(content_type);
        if is_plain(&body) {
            // The library would encode it for a line of 76 characters, which is an eighth of what a mail costs.
            let lines = body.replace('\n', "\r\n").into_bytes();
            part.body(Body::dangerous_pre_encoded(lines, ContentTransferEncoding::SevenBit))
        } else {
            part.header(ContentTransferEncoding::QuotedPrintable).body(body)
        }
    };
    MultiPart::builder()
        .kind(MultiPartKind::Alternative)
        // "=_" cannot stand in quoted-printable text and does not in plain text, so no body can end its part.
        .boundary(format!("=_{delivery:.60}"))
        .singlepart(part(ContentType::TEXT_PLAIN, texts.text))
        .singlepart(part(ContentType::TEXT_HTML, texts.html))
}

/// Text that every mail server takes as it is (RFC 5322, 2.1.1 and 2.3).
fn is_plain(body: &str) -> bool {
    // Counted, which is faster than stopping at the first.
    body.bytes().filter(|byte| !matches!(byte, b'\n' | b'\t' | b' '..=b'~')).count() == 0
        && body.lines().all(|line| line.len() <= LONGEST_LINE)
        && !body.contains("=_")
}

/// The value is ours or a URL's: printable ASCII without a space. The library would encode a long one.
fn header(name: &'static str, value: String) -> HeaderValue {
    HeaderValue::dangerous_new_pre_encoded(HeaderName::new_from_ascii_str(name), value.clone(), value)
}
