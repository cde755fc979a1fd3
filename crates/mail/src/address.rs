//! To whom a mail goes. Neither an address nor a name is ever printed.

use std::fmt;
use std::str::FromStr;
use url::Host;

/// RFC 5321, 4.5.3.1: the part before the @, and the whole path without its angle brackets.
const LONGEST_LOCAL: usize = 64;
const LONGEST: usize = 254;
/// Of a name or a subject, in characters. A word is not folded, and servers refuse lines beyond 998 bytes (RFC 5322, 2.1.1).
const LONGEST_TEXT: usize = 250;

/// One address, `local@domain`: ASCII before the @, a domain name after it. A name beyond ASCII is kept in its ASCII form.
///
/// Quoted local parts, comments, lists and IP addresses are valid in the RFCs and in no shop; they are refused.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(lettre::Address);

/// The text is not one address. It is not repeated here: an error may be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No @, or nothing on one side of it.
    #[error("the address has not the form local@domain")]
    Form,
    /// Too long, or a character that is not of an address.
    #[error("the part of the address before the @ is too long or holds a character that it cannot")]
    Local,
    /// Not a domain name.
    #[error("the part of the address after the @ is not a domain name")]
    Domain,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::Form)?;
        if local.is_empty() || domain.is_empty() {
            return Err(AddressError::Form);
        }
        let atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&byte);
        if local.len() > LONGEST_LOCAL || !local.bytes().all(atom) {
            return Err(AddressError::Local);
        }
        // The URL parser decodes percent signs; a domain has none.
        let Some(Host::Domain(domain)) = Host::parse(domain).ok().filter(|_| !domain.contains('%')) else {
            return Err(AddressError::Domain);
        };
        if local.len() + 1 + domain.len() > LONGEST {
            return Err(AddressError::Domain);
        }
        lettre::Address::new(local, domain).map(Address).map_err(|error| match error {
            lettre::address::AddressError::InvalidUser => AddressError::Local,
            _ => AddressError::Domain,
        })
    }
}

impl Address {
    /// What follows the @, in ASCII.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.domain()
    }

    /// The address itself, for a message.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.as_ref()
    }

    pub(crate) fn lettre(&self) -> lettre::Address {
        self.0.clone()
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(REDACTED)")
    }
}

/// An address, and the name shown with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Where the mail goes.
    pub address: Address,
    /// Any text: what is not of one line is made so.
    pub name: Option<String>,
}

impl Mailbox {
    /// For a header. Without a name left after cleaning, the address stands alone.
    pub(crate) fn lettre(&self) -> lettre::message::Mailbox {
        let name = self.name.as_deref().map(one_line).filter(|name| !name.is_empty());
        lettre::message::Mailbox::new(name, self.address.lettre())
    }
}

/// `local@domain` or `Name <local@domain>`.
impl FromStr for Mailbox {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let Some(inner) = text.strip_suffix('>') else {
            return Ok(Mailbox { address: text.parse()?, name: None });
        };
        let (name, address) = inner.rsplit_once('<').ok_or(AddressError::Form)?;
        let name = name.trim().trim_matches('"').trim();
        Ok(Mailbox { address: address.parse()?, name: (!name.is_empty()).then(|| name.to_owned()) })
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mailbox(REDACTED)")
    }
}

/// One line of text for a header: every run of spaces, line breaks and control characters becomes one space, and what is too
/// long is cut.
pub(crate) fn one_line(text: &str) -> String {
    let blank = |c: char| c.is_whitespace() || c.is_control();
    let line = text.split(blank).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_taken_and_its_domain_kept_in_ascii() {
        for (text, kept) in [
            ("ada@example.org", "ada@example.org"),
            ("ada.l+shop@mail.example.org", "ada.l+shop@mail.example.org"),
            ("ada@Bücher.example", "ada@xn--bcher-kva.example"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().expose(), kept);
        }
    }

    #[test]
    fn what_is_not_one_address_is_refused_and_not_repeated() {
        let long = format!("{}@example.org", "a".repeat(65));
        for text in [
            "",
            "canary",
            "@example.org",
            "canary@",
            "canary@@example.org",
            "a canary@example.org",
            "a@example.org,canary@example.org",
            "\"canary\"@example.org",
            "canary@example.org\r\nBcc: x@example.org",
            "canary\r\n@example.org",
            "canary@exa mple.org",
            "canary@127.0.0.1",
            "canary@[127.0.0.1]",
            "canary@[::1]",
            "canary@example..org",
            "cänary@example.org",
            "<canary@example.org>",
            "canary@ex%61mple.org",
            ".canary@example.org",
            "canary@example.org>",
            "canary@-example.org",
            &long,
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{text}: {error}");
        }
    }

    #[test]
    fn a_mailbox_has_a_name_or_none_and_neither_is_printed() {
        let mailbox: Mailbox = "Example Shop <shop@example.org>".parse().unwrap();
        assert_eq!((mailbox.name.as_deref(), mailbox.address.domain()), (Some("Example Shop"), "example.org"));
        assert_eq!("shop@example.org".parse::<Mailbox>().unwrap().name, None);
        assert!("Shop <shop@example.org".parse::<Mailbox>().is_err());
        assert_eq!(format!("{mailbox:?} {:?}", mailbox.address), "Mailbox(REDACTED) Address(REDACTED)");
    }
}
