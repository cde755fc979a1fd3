-- What the shop sells, and what its customers have put into their carts. Owned by the gateway, read by the checkout.
-- Ids are compared byte by byte, so that pages come in the same order wherever the server stands.
create table products (
    id             text collate "C" primary key,
    sku            text not null,
    name           text not null,
    category       text not null,
    price_amount   bigint not null check (price_amount >= 0),
    price_currency text not null,
    weight_g       bigint not null,
    length_mm      bigint not null,
    width_mm       bigint not null,
    height_mm      bigint not null
);

create table carts (
    id         text primary key,
    user_id    text not null,
    country    text not null,
    service    text not null,
    created_at timestamptz not null default now()
);

-- The price is the product's when it was put into the cart: the checkout compares them.
create table cart_lines (
    cart_id        text not null references carts (id) on delete cascade,
    product_id     text collate "C" not null,
    quantity       bigint not null check (quantity > 0),
    price_amount   bigint not null check (price_amount >= 0),
    price_currency text not null,
    primary key (cart_id, product_id)
);

-- Requests to check out, by their idempotency key. Owned by the gateway. The message is the one to be published, trace
-- context and all: a repeat publishes the same bytes.
create table checkout_requests (
    key          text primary key,
    body_hash    bytea not null,
    order_id     text not null unique,
    cart_id      text not null,
    user_id      text not null,
    message      bytea not null,
    requested_at timestamptz not null default now(),
    -- Until then somebody may be waiting for the outcome.
    answer_by    timestamptz not null,
    published_at timestamptz
);
create index checkout_requests_requested_at on checkout_requests (requested_at);
create index checkout_requests_unpublished on checkout_requests (requested_at) where published_at is null;

-- Which payment method an order is to be paid with. Written by the gateway, erased by the checkout when its saga ends.
create table payment_methods (
    order_id  text primary key,
    reference text not null
);

-- What has become of a checkout. Owned by the checkout, read by the gateway.
create table checkouts (like picks including defaults including constraints including storage, primary key (key))
    with (toast_tuple_target = 8160);
create index checkouts_decided_at on checkouts using brin (decided_at);
