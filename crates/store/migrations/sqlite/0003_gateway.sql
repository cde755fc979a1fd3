-- The same tables as for Postgres, where the reasons stand. Times are Unix seconds.
create table products (
    id             text primary key,
    sku            text not null,
    name           text not null,
    category       text not null,
    price_amount   integer not null check (price_amount >= 0),
    price_currency text not null,
    weight_g       integer not null,
    length_mm      integer not null,
    width_mm       integer not null,
    height_mm      integer not null
) strict;

create table carts (
    id         text primary key,
    user_id    text not null,
    country    text not null,
    service    text not null,
    created_at integer not null default (unixepoch())
) strict;

create table cart_lines (
    cart_id        text not null references carts (id) on delete cascade,
    product_id     text not null,
    quantity       integer not null check (quantity > 0),
    price_amount   integer not null check (price_amount >= 0),
    price_currency text not null,
    primary key (cart_id, product_id)
) strict;

create table checkout_requests (
    key          text primary key,
    body_hash    blob not null,
    order_id     text not null unique,
    cart_id      text not null,
    user_id      text not null,
    message      blob not null,
    requested_at real not null default (unixepoch('subsec')),
    answer_by    real not null,
    published_at real
) strict;
create index checkout_requests_requested_at on checkout_requests (requested_at);
create index checkout_requests_unpublished on checkout_requests (requested_at) where published_at is null;

create table payment_methods (
    order_id  text primary key,
    reference text not null
) strict;

create table checkouts (
    key        text primary key,
    version    integer not null,
    state      text not null,
    answer     blob not null,
    decided_at integer not null default (unixepoch())
) strict;
create index checkouts_decided_at on checkouts (decided_at);
