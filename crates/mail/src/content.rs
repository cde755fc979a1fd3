//! What the mails say: the fields that templates use. Every text comes from outside and may hold anything.

use jiff::civil::Date;
use serde::{Serialize, Serializer};
use waybill_money::{Currency, Money};

/// A product can be had again.
#[derive(Clone, Debug, Serialize)]
pub struct BackInStock {
    /// The shop's name.
    pub shop: String,
    /// Whom to greet; none where no name is known.
    pub customer: Option<String>,
    /// What is there again.
    pub product: Product,
    /// Ends the subscription: see [`crate::unsubscribe`].
    pub unsubscribe_url: String,
}

/// A product on sale.
#[derive(Clone, Debug, Serialize)]
pub struct Product {
    /// As customers know it.
    pub name: String,
    /// Its page.
    pub url: String,
    /// For one piece.
    #[serde(serialize_with = "shown")]
    pub price: Money,
}

/// An order is paid and will be picked.
#[derive(Clone, Debug, Serialize)]
pub struct OrderConfirmed {
    /// The shop's name.
    pub shop: String,
    /// Whom to greet; none where no name is known.
    pub customer: Option<String>,
    /// Its id.
    pub order: String,
    /// When it was placed, in the shop's time zone.
    pub placed_on: Date,
    /// What was ordered.
    pub lines: Vec<Line>,
    /// What was paid.
    #[serde(serialize_with = "shown")]
    pub total: Money,
    /// The order's page.
    pub url: String,
}

/// A line of an order.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The product's name.
    pub name: String,
    /// How many pieces.
    pub quantity: u32,
    /// The price of the line, all pieces together.
    #[serde(serialize_with = "shown")]
    pub amount: Money,
}

/// An order has left the warehouse.
#[derive(Clone, Debug, Serialize)]
pub struct OrderShipped {
    /// The shop's name.
    pub shop: String,
    /// Whom to greet; none where no name is known.
    pub customer: Option<String>,
    /// Its id.
    pub order: String,
    /// At least one.
    pub parcels: Vec<Parcel>,
    /// When the last of them is expected; none where the carrier does not say.
    pub expected_on: Option<Date>,
    /// The order's page.
    pub url: String,
}

/// A parcel on its way.
#[derive(Clone, Debug, Serialize)]
pub struct Parcel {
    /// The carrier's name.
    pub carrier: String,
    /// As the carrier knows it.
    pub tracking_number: String,
    /// Where to follow it; none where the carrier has no such page.
    pub tracking_url: Option<String>,
}

/// What a mail says.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// See [`BackInStock`].
    BackInStock(BackInStock),
    /// See [`OrderConfirmed`].
    OrderConfirmed(OrderConfirmed),
    /// See [`OrderShipped`].
    OrderShipped(OrderShipped),
}

impl Content {
    /// The name of its templates.
    #[must_use]
    pub fn template(&self) -> &'static str {
        match self {
            Content::BackInStock(_) => "back_in_stock",
            Content::OrderConfirmed(_) => "order_confirmed",
            Content::OrderShipped(_) => "order_shipped",
        }
    }

    /// The link that ends the subscription, on mails that have one.
    #[must_use]
    pub fn unsubscribe_url(&self) -> Option<&str> {
        match self {
            Content::BackInStock(it) => Some(&it.unsubscribe_url),
            Content::OrderConfirmed(_) | Content::OrderShipped(_) => None,
        }
    }

    /// One of each, with every optional field filled: for a preview, and for the check of all templates at start.
    #[must_use]
    pub fn examples() -> [Content; 3] {
        let (shop, customer) = ("Example Shop".to_owned(), Some("Ada Lovelace".to_owned()));
        let (order, url) = ("o-1-0000042".to_owned(), "https://shop.example/orders/o-1-0000042".to_owned());
        let euro = |amount| Money::new(amount, Currency::EUR);
        let line = |name: &str, quantity, amount| Line { name: name.to_owned(), quantity, amount: euro(amount) };
        [
            Content::BackInStock(BackInStock {
                shop: shop.clone(),
                customer: customer.clone(),
                product: Product {
                    name: "Reading lamp <Brass & Oak>".to_owned(),
                    url: "https://shop.example/products/p-0042?from=mail&tone=brass".to_owned(),
                    price: euro(8_950),
                },
                unsubscribe_url: "https://shop.example/unsubscribe/k1.s-42.0123456789abcdefghijkl".to_owned(),
            }),
            Content::OrderConfirmed(OrderConfirmed {
                shop: shop.clone(),
                customer: customer.clone(),
                order: order.clone(),
                placed_on: jiff::civil::date(2026, 11, 21),
                lines: vec![line("Reading lamp <Brass & Oak>", 1, 8_950), line("Light bulb", 3, 1_497)],
                total: euro(10_447),
                url: url.clone(),
            }),
            Content::OrderShipped(OrderShipped {
                shop,
                customer,
                order,
                parcels: vec![Parcel {
                    carrier: "Parcel Post".to_owned(),
                    tracking_number: "CA000015946DE".to_owned(),
                    tracking_url: Some("https://carrier.example/track?id=CA000015946DE&lang=en".to_owned()),
                }],
                expected_on: Some(jiff::civil::date(2026, 11, 25)),
                url,
            }),
        ]
    }

    /// The examples again, with nothing where nothing may be: a template must not count on it.
    #[must_use]
    pub fn sparse_examples() -> [Content; 3] {
        Content::examples().map(|content| match content {
            Content::BackInStock(it) => Content::BackInStock(BackInStock { customer: None, ..it }),
            Content::OrderConfirmed(it) => Content::OrderConfirmed(OrderConfirmed { customer: None, ..it }),
            Content::OrderShipped(it) => {
                let parcels = it.parcels.into_iter().map(|parcel| Parcel { tracking_url: None, ..parcel }).collect();
                Content::OrderShipped(OrderShipped { customer: None, expected_on: None, parcels, ..it })
            }
        })
    }
}

/// As the rest of the project shows money: `19.99 EUR`.
fn shown<S: Serializer>(money: &Money, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(money)
}
