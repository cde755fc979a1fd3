-- What the shop owns of each product and where it stands: every piece ever received is in exactly one of four places.
create table stock (
    product_id        text primary key,
    received          bigint not null default 0,
    available         bigint not null default 0 check (available >= 0),
    reserved          bigint not null default 0 check (reserved >= 0),
    sold              bigint not null default 0 check (sold >= 0),
    shrinkage         bigint not null default 0 check (shrinkage >= 0),
    -- Counts the committed changes of available, without a gap; the last of them that left nothing.
    version           bigint not null default 0,
    last_zero_version bigint not null default 0,
    check (available + reserved + sold + shrinkage = received)
) with (fillfactor = 50); -- A hot row is written again on its own page.

-- What each order has taken. A row is read and written only under the lock of its product's row in stock.
create table reservations (
    order_id   text not null,
    product_id text not null,
    quantity   bigint not null check (quantity >= 0),
    -- Sold, but not found in its place: gone from sold to shrinkage.
    lost       bigint not null default 0,
    state      text not null check (state in ('held', 'sold', 'released', 'cancelled')),
    expires_at timestamptz not null,
    primary key (order_id, product_id),
    check (lost between 0 and quantity)
);
create index reservations_due on reservations (expires_at, order_id) where state = 'held';

-- Changes of available that are to be told. Ids ascend within a product, as its row is locked until the commit.
create table levels (
    id                bigint generated always as identity,
    product_id        text not null,
    version           bigint not null,
    available         bigint not null,
    last_zero_version bigint not null,
    changed_at        timestamptz not null default now(),
    primary key (product_id, version)
);
create index levels_id on levels (id);
