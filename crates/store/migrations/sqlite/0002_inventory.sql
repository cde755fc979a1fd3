-- The same tables as for Postgres, where the reasons stand. Times are Unix seconds.
create table stock (
    product_id        text primary key,
    received          integer not null default 0,
    available         integer not null default 0 check (available >= 0),
    reserved          integer not null default 0 check (reserved >= 0),
    sold              integer not null default 0 check (sold >= 0),
    shrinkage         integer not null default 0 check (shrinkage >= 0),
    version           integer not null default 0,
    last_zero_version integer not null default 0,
    check (available + reserved + sold + shrinkage = received)
) strict;

create table reservations (
    order_id   text not null,
    product_id text not null,
    quantity   integer not null check (quantity >= 0),
    lost       integer not null default 0,
    state      text not null check (state in ('held', 'sold', 'released', 'cancelled')),
    expires_at real not null,
    primary key (order_id, product_id),
    check (lost between 0 and quantity)
) strict;
create index reservations_due on reservations (expires_at, order_id) where state = 'held';

create table levels (
    id                integer primary key autoincrement,
    product_id        text not null,
    version           integer not null,
    available         integer not null,
    last_zero_version integer not null,
    changed_at        real not null default (unixepoch('subsec')),
    unique (product_id, version)
) strict;
