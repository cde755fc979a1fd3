//! Who the shop is to its customers, and how fast it may write to them.

use serde::{Deserialize, Serialize};

/// What messages say of the shop, and where their links lead.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shop {
    /// `name`: as customers know it.
    pub name: String,
    /// `url`: its address; a product is at `<url>/products/<id>`, an order at `<url>/orders/<id>`.
    pub url: String,
}

/// Messages a second of each lane, over all processes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// `email`: mails of campaigns.
    pub email: f64,
    /// `push`: push messages.
    pub push: f64,
    /// `orders`: mails about orders.
    pub orders: f64,
}

impl Default for Rates {
    fn default() -> Self {
        Rates { email: 50.0, push: 500.0, orders: 20.0 }
    }
}

/// A setting that does not work; it names the settings key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Mails would be from nobody.
    #[error("shop.name is missing: give the shop's name, as customers know it")]
    Name,
    /// Links would lead nowhere.
    #[error("shop.url must be the shop's address, for example https://shop.example")]
    Url,
    /// No message would ever go out, or the spacing would vanish.
    #[error("rates.{0} must be messages a second, from 0.1 to 1000000")]
    Rate(&'static str),
}

impl Shop {
    /// Checks the values.
    ///
    /// # Errors
    /// One of them does not work.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.name.trim().is_empty() {
            return Err(SettingsError::Name);
        }
        let address = self.url.strip_prefix("https://").or_else(|| self.url.strip_prefix("http://"));
        match address {
            Some(rest) if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(()),
            Some(_) | None => Err(SettingsError::Url),
        }
    }

    pub(super) fn product(&self, id: &str) -> String {
        format!("{}/products/{id}", self.url.trim_end_matches('/'))
    }

    pub(super) fn order(&self, id: &str) -> String {
        format!("{}/orders/{id}", self.url.trim_end_matches('/'))
    }
}

impl Rates {
    /// Checks the values.
    ///
    /// # Errors
    /// One of them does not work.
    pub fn check(&self) -> Result<(), SettingsError> {
        let lanes = [("email", self.email), ("push", self.push), ("orders", self.orders)];
        match lanes.into_iter().find(|(_, rate)| !(0.1..=1e6).contains(rate)) {
            Some((lane, _)) => Err(SettingsError::Rate(lane)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_setting_is_named() {
        let shop = |name: &str, url: &str| Shop { name: name.to_owned(), url: url.to_owned() };
        assert_eq!(shop("Shop", "https://shop.example/").check(), Ok(()));
        assert_eq!(shop(" ", "https://shop.example").check(), Err(SettingsError::Name));
        for url in ["", "shop.example", "https://", "https://shop example"] {
            assert_eq!(shop("Shop", url).check(), Err(SettingsError::Url), "{url}");
        }
        assert_eq!(shop("Shop", "https://shop.example/").product("p-1"), "https://shop.example/products/p-1");
        assert_eq!(Rates::default().check(), Ok(()));
        for rate in [0.0, -1.0, 0.01, 1e9, f64::NAN, f64::INFINITY] {
            assert_eq!(Rates { push: rate, ..Rates::default() }.check(), Err(SettingsError::Rate("push")), "{rate}");
        }
    }
}
