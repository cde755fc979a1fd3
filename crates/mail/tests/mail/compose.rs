//! What a mail consists of, read back by a parser that nobody here wrote.

use crate::{ada, compose, date, settings, texts};
use mail_parser::{HeaderValue, MessageParser, PartType};
use proptest::prelude::*;
use std::collections::BTreeMap;
use url::Url;
use waybill_mail::{ComposeError, Composer, Content, Draft, Mailbox, Rendered, Settings, Templates};

fn link() -> Url {
    "https://shop.example/unsubscribe/k1.s-42.0123456789abcdefghijkl".parse().unwrap()
}

/// The headers as they stand, unfolded, by lower-case name.
fn headers(bytes: &[u8]) -> BTreeMap<String, String> {
    let text = std::str::from_utf8(bytes).unwrap();
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    let unfolded = head.replace("\r\n ", " ");
    let lines: Vec<_> = unfolded.split("\r\n").map(|line| line.split_once(": ").unwrap()).collect();
    let map: BTreeMap<_, _> = lines.iter().map(|(name, value)| (name.to_lowercase(), (*value).to_owned())).collect();
    assert_eq!(map.len(), lines.len(), "a header stands twice:\n{head}");
    map
}

#[test]
fn a_campaign_mail_has_exactly_these_headers() {
    let settings = Settings { reply_to: Some("help@example.org".to_owned()), ..settings("smtp://127.0.0.1") };
    let composer = Composer::new(&settings).unwrap();
    let [back, ..] = Content::examples();
    let texts = Templates::load(None).unwrap().render(&back).unwrap();
    let (to, link) = (ada(), link());
    let draft = Draft { delivery: "d-1", to: &to, date: date(), unsubscribe: Some(&link), texts };
    let message = composer.compose(draft.clone()).unwrap();
    assert_eq!(message.id(), "d-1@example.org");
    let headers = headers(message.bytes());
    let expected = [
        ("auto-submitted", "auto-generated"),
        ("content-type", "multipart/alternative; boundary=\"=_d-1\""),
        ("date", "Sat, 21 Nov 2026 13:37:00 +0000"),
        ("from", "\"Example Shop\" <shop@example.org>"),
        ("list-unsubscribe", "<https://shop.example/unsubscribe/k1.s-42.0123456789abcdefghijkl>"),
        ("list-unsubscribe-post", "List-Unsubscribe=One-Click"),
        ("message-id", "<d-1@example.org>"),
        ("mime-version", "1.0"),
        ("reply-to", "help@example.org"),
        ("subject", "Reading lamp <Brass & Oak> is back in stock"),
        ("to", "\"Ada Lovelace\" <ada@example.org>"),
    ];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(headers, expected);
    assert_eq!(composer.compose(draft).unwrap().bytes(), message.bytes(), "the same draft, the same bytes");
}

#[test]
fn an_order_mail_offers_no_unsubscribing() {
    let headers = headers(compose(&ada(), texts()).bytes());
    assert!(!headers.keys().any(|name| name.starts_with("list-")), "{headers:?}");
}

#[test]
fn text_comes_before_html_and_both_are_whole_in_any_language() {
    let text = "Grüße, 世界! 🎁 =3D\n.\n--=_d-1--\n\tTab\nA long line: ".to_owned() + &"wort ".repeat(500);
    let texts = Rendered { subject: "Größe 世界".to_owned(), html: format!("<p>{text}</p>"), text };
    let to = Mailbox { name: Some("Zoë \"Z\" O'Hara, jr.".to_owned()), ..ada() };
    let message = compose(&to, texts.clone());
    assert!(message.bytes().is_ascii(), "8BITMIME would be needed");
    assert!(message.bytes().split(|byte| *byte == b'\n').all(|line| line.len() < 500), "a line is too long");
    let parsed = MessageParser::default().parse(message.bytes()).unwrap();
    assert_eq!(parsed.subject(), Some("Größe 世界"));
    assert_eq!(parsed.to().unwrap().first().unwrap().name(), Some("Zoë \"Z\" O'Hara, jr."));
    let bodies: Vec<_> = parsed.parts[1..].iter().map(|part| &part.body).collect();
    let [PartType::Text(plain), PartType::Html(html)] = bodies[..] else { panic!("{bodies:?}") };
    assert_eq!(plain.replace("\r\n", "\n"), texts.text);
    assert_eq!(html.replace("\r\n", "\n"), texts.html);
}

#[test]
fn plain_text_goes_as_it_is_unless_a_server_or_the_parts_would_not_bear_it() {
    let (long, boundary) = ("x".repeat(1_500), "--=_d-1--\n");
    for (text, expected) in [
        ("Hello,\n\n.\n.. it is = back & 100 %\n\tTab\n", "7bit"),
        ("", "7bit"),
        (boundary, "quoted-printable"),
        (&long, "quoted-printable"),
        ("Grüße", "quoted-printable"),
        ("a bare \r return", "quoted-printable"),
        ("a \0", "quoted-printable"),
        ("\x7f", "quoted-printable"),
    ] {
        let texts = Rendered { text: text.to_owned(), ..texts() };
        let message = compose(&ada(), texts);
        let parsed = MessageParser::default().parse(message.bytes()).unwrap();
        let [_, plain, _] = &parsed.parts[..] else { panic!("{:?}", parsed.parts) };
        let encoding = plain.headers.iter().find(|header| header.name() == "Content-Transfer-Encoding");
        assert_eq!(encoding.and_then(|header| header.value().as_text()), Some(expected), "{text:?}");
        assert_eq!(plain.text_contents().map(|text| text.replace("\r\n", "\n")).as_deref(), Some(text));
    }
}

#[test]
fn what_cannot_become_a_mail_is_an_error() {
    let composer = Composer::new(&settings("smtp://127.0.0.1")).unwrap();
    let (to, link) = (ada(), link());
    let good = Draft { delivery: "d-1", to: &to, date: date(), unsubscribe: Some(&link), texts: texts() };
    assert!(composer.compose(good.clone()).is_ok());
    for delivery in ["", "d 1", "d\r\n1", "d>1", "ä", "d@1", &"d".repeat(129)] {
        let draft = Draft { delivery, ..good.clone() };
        assert!(matches!(composer.compose(draft), Err(ComposeError::Delivery)), "{delivery:?}");
    }
    for date in [jiff::Timestamp::MIN, jiff::Timestamp::UNIX_EPOCH, jiff::Timestamp::MAX] {
        assert!(matches!(composer.compose(Draft { date, ..good.clone() }), Err(ComposeError::Date)), "{date}");
    }
    for url in ["mailto:stop@example.org", "javascript:alert(1)", &format!("https://shop.example/{}", "x".repeat(900))]
    {
        let url: Url = url.parse().unwrap();
        let draft = Draft { unsubscribe: Some(&url), ..good.clone() };
        assert!(matches!(composer.compose(draft), Err(ComposeError::Unsubscribe)), "{url}");
    }
}

/// Any text, and often one with what ends a header.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        Just("\r\nBcc: eve@example.net\r\n".to_owned()),
        Just("\n\n<html>".to_owned()),
        Just("\r".to_owned()),
        Just("\0\u{85}\u{2028}\u{b}".to_owned()),
        Just("=?utf-8?q?=0D=0ABcc:_eve=40example.net?=".to_owned()),
        Just("\">, <eve@example.net>".to_owned()),
        Just("x".repeat(1200)),
        Just("ü".repeat(400)),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_adds_a_header_or_a_recipient(name in hostile(), subject in hostile(), text in hostile(), html in hostile(), from in hostile()) {
        // A sender's name that is not to be had is refused by the settings.
        let from = format!("{from} <shop@example.org>");
        let settings = Settings { from, ..settings("smtp://127.0.0.1") };
        let composer = Composer::new(&settings).unwrap();
        let to = Mailbox { name: Some(name), ..ada() };
        let texts = Rendered { subject, text, html };
        let draft = Draft { delivery: "d-1", to: &to, date: date(), unsubscribe: Some(&link()), texts };
        let message = composer.compose(draft).unwrap();

        let headers = headers(message.bytes());
        let names: Vec<_> = headers.keys().map(String::as_str).collect();
        prop_assert_eq!(names, [
            "auto-submitted", "content-type", "date", "from", "list-unsubscribe", "list-unsubscribe-post", "message-id",
            "mime-version", "subject", "to",
        ]);
        let head = message.bytes().windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let lines = std::str::from_utf8(&message.bytes()[..head]).unwrap().split("\r\n");
        for line in lines {
            prop_assert!(line.len() <= 998 && line.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)), "{line:?}");
        }
        let parsed = MessageParser::default().parse(message.bytes()).unwrap();
        for (field, address) in [(parsed.to(), "ada@example.org"), (parsed.from(), "shop@example.org")] {
            let all: Vec<_> = field.unwrap().iter().map(|one| one.address()).collect();
            prop_assert_eq!(all, [Some(address)]);
        }
        prop_assert!(parsed.bcc().is_none());
        // No body ends its part or begins another.
        prop_assert_eq!(parsed.parts.len(), 3);
    }

    #[test]
    fn any_text_is_an_address_or_an_error(text in hostile()) {
        if let Ok(mailbox) = text.parse::<Mailbox>() {
            let headers = headers(compose(&mailbox, texts()).bytes());
            prop_assert!(headers["to"].contains(mailbox.address.expose()));
        }
    }
}

#[test]
fn the_parser_would_see_a_second_recipient() {
    let forged = b"To: ada@example.org, <eve@example.net>\r\nBcc: x@example.net\r\n\r\n";
    let parsed = MessageParser::default().parse(&forged[..]).unwrap();
    assert_eq!(parsed.to().unwrap().iter().count(), 2);
    assert!(parsed.bcc().is_some() && !matches!(parsed.header("Bcc"), Some(HeaderValue::Empty)));
}
