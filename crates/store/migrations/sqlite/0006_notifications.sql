-- The same tables as for Postgres, where the reasons stand. Times are Unix seconds.
create table contacts (
    user_id    text primary key,
    email      text not null,
    name       text,
    updated_at real not null default (unixepoch('subsec'))
) strict;

create table push_targets (
    user_id    text not null,
    id         text not null,
    target     text not null,
    created_at real not null default (unixepoch('subsec')),
    primary key (user_id, id)
) strict;

create table suppressions (
    email         text primary key,
    reason        text not null,
    suppressed_at real not null default (unixepoch('subsec'))
) strict;

create table subscriptions (
    id          integer primary key autoincrement,
    product_id  text not null,
    user_id     text not null,
    channel     text not null check (channel in ('email', 'push')),
    quantity    integer not null default 1 check (quantity > 0),
    traceparent text,
    created_at  real not null default (unixepoch('subsec')),
    expires_at  real not null,
    unique (product_id, user_id, channel)
) strict;
create index subscriptions_waiting on subscriptions (product_id, id, channel, quantity, expires_at);
create index subscriptions_expiry on subscriptions (expires_at);

create table restocks (
    product_id   text primary key,
    zero_version integer not null,
    tell_at      real not null
) strict;

create table crossings (
    key        text primary key,
    version    integer not null,
    state      text not null,
    answer     blob not null,
    decided_at integer not null default (unixepoch())
) strict;
create index crossings_decided_at on crossings (decided_at);

create table campaigns (
    key        text primary key,
    version    integer not null,
    state      text not null,
    answer     blob not null,
    decided_at integer not null default (unixepoch())
) strict;
create index campaigns_decided_at on campaigns (decided_at);

create table batches (
    campaign_id  text not null,
    number       integer not null,
    product_id   text not null,
    channel      text not null,
    position     integer not null,
    size         integer not null,
    after_id     integer not null,
    to_id        integer not null,
    restocked_at real not null,
    waybill      text not null,
    publish_at   real not null,
    published_at real,
    settled_at   real,
    sent         integer not null default 0,
    failed       integer not null default 0,
    unknown      integer not null default 0,
    primary key (campaign_id, number)
) strict;
create index batches_unpublished on batches (publish_at) where published_at is null;
create index batches_open on batches (campaign_id) where settled_at is null;
create index batches_settled_at on batches (settled_at) where settled_at is not null;

create table email_batches (
    key        text primary key,
    version    integer not null,
    state      text not null,
    answer     blob not null,
    decided_at integer not null default (unixepoch())
) strict;
create index email_batches_decided_at on email_batches (decided_at);

create table push_batches (
    key        text primary key,
    version    integer not null,
    state      text not null,
    answer     blob not null,
    decided_at integer not null default (unixepoch())
) strict;
create index push_batches_decided_at on push_batches (decided_at);

create table order_mails (
    key        text primary key,
    version    integer not null,
    state      text not null,
    answer     blob not null,
    decided_at integer not null default (unixepoch())
) strict;
create index order_mails_decided_at on order_mails (decided_at);

create table sendings (
    channel  text not null,
    batch_id text not null,
    part     integer not null,
    people   text not null,
    begun_at real not null default (unixepoch('subsec')),
    primary key (channel, batch_id, part)
) strict;
create index sendings_begun_at on sendings (begun_at);

create table send_rates (
    lane    text primary key,
    next_at real not null
) strict;
create table send_grants (
    id         integer primary key autoincrement,
    lane       text not null,
    starts_at  real not null,
    messages   integer not null,
    per_second real not null
) strict;
create index send_grants_starts_at on send_grants (starts_at);
