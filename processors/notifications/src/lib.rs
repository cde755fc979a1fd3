//! Back in stock: who waits for a product, when it is back, who is told, and how fast.

mod send;

pub use send::{
    Email, Mailer, MailerError, OrderEvent, OrderLetter, OrderMail, OrderMailed, Outlet, Part, Push, Rates,
    SettingsError, Shop, Tell, Telling,
};
