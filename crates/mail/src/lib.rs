//! Mails: their texts, their form, and their way to a mail server.
//!
//! - [`Templates`] turn [`Content`] into texts, a [`Composer`] turns these into a [`Message`], [`Smtp`] sends it.
//! - An answer is closed: [`Answer`]. `Unknown` is one of them and means: the server may have taken the mail.
//! - [`unsubscribe`] signs and verifies the links that end a subscription.
//!
//! Nothing here repeats a mail, logs or reads a clock: when to repeat is the caller's decision. No error, answer or
//! `Debug` text has an address or a name in it.

mod address;
mod content;
mod message;
mod settings;
mod smtp;
mod templates;
pub mod unsubscribe;

pub use address::{Address, AddressError, Mailbox};
pub use content::{BackInStock, Content, Line, OrderConfirmed, OrderShipped, Parcel, Product};
pub use message::{ComposeError, Composer, Draft, Message};
pub use settings::{Settings, SettingsError};
pub use smtp::{Answer, Reply, Smtp};
pub use templates::{Rendered, TemplateError, Templates};

/// Whether a text can stand in a header and in a link as it is.
fn is_id(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=128).contains(&text.len()) && text.bytes().all(letter)
}
