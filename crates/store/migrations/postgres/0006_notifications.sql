-- Who is to be written to, and where. Owned by the gateway. These tables alone hold addresses and devices.
create table contacts (
    user_id    text primary key,
    email      text not null,
    name       text,
    updated_at timestamptz not null default now()
);

-- Browsers and apps that take push messages; the id derives from the target, so one is kept once.
create table push_targets (
    user_id    text not null,
    id         text not null,
    target     jsonb not null,
    created_at timestamptz not null default now(),
    primary key (user_id, id)
);

-- Addresses that nobody has: nothing is sent there. Owned by email.
create table suppressions (
    email         text primary key,
    reason        text not null,
    suppressed_at timestamptz not null default now()
);

-- Who waits for what. Written by the gateway; deleted by it when somebody unsubscribes, and by fanout when they were told.
-- Numbers ascend in the order of asking: first come, first served.
create table subscriptions (
    id          bigint generated always as identity primary key,
    product_id  text collate "C" not null,
    user_id     text not null,
    channel     text not null check (channel in ('email', 'push')),
    -- Fewer pieces are of no use.
    quantity    bigint not null default 1 check (quantity > 0),
    -- The span in which it was asked for: W3C.
    traceparent text,
    created_at  timestamptz not null default now(),
    expires_at  timestamptz not null,
    unique (product_id, user_id, channel)
);
-- A campaign walks along it, without a look into the table.
create index subscriptions_waiting on subscriptions (product_id, id) include (channel, quantity, expires_at);
create index subscriptions_expiry on subscriptions (expires_at);

-- The last time a product came back, and when people were or are to be told of it. Owned by restock, and never pruned:
-- `inventory.levels` keeps a product's last record for ever.
create table restocks (
    product_id   text primary key,
    zero_version bigint not null,
    tell_at      timestamptz not null
);
-- Each crossing, as <product>/<zero version>.
create table crossings (like picks including defaults including constraints including storage, primary key (key))
    with (toast_tuple_target = 8160);
create index crossings_decided_at on crossings using brin (decided_at);

-- How far each campaign has come, as <product>/<zero version>, and the results that were taken, as their batch. Owned by fanout.
create table campaigns (like picks including defaults including constraints including storage, primary key (key))
    with (toast_tuple_target = 8160);
create index campaigns_decided_at on campaigns using brin (decided_at);

-- The batches of the campaigns: planned, published when their time has come, settled by their results. Owned by fanout.
create table batches (
    campaign_id  text not null,
    number       integer not null,
    product_id   text not null,
    channel      text not null,
    -- Counts those of the channel.
    position     integer not null,
    size         integer not null,
    after_id     bigint not null,
    to_id        bigint not null,
    restocked_at timestamptz not null,
    waybill      jsonb not null,
    publish_at   timestamptz not null,
    published_at timestamptz,
    settled_at   timestamptz,
    sent         integer not null default 0,
    failed       integer not null default 0,
    unknown      integer not null default 0,
    primary key (campaign_id, number)
);
create index batches_unpublished on batches (publish_at) where published_at is null;
create index batches_open on batches (campaign_id) where settled_at is null;
create index batches_settled_at on batches (settled_at) where settled_at is not null;

-- What the senders have decided: batches by their id, order mails as confirmed/<order> and shipped/<order>.
create table email_batches (like picks including defaults including constraints including storage, primary key (key))
    with (toast_tuple_target = 8160);
create index email_batches_decided_at on email_batches using brin (decided_at);
create table push_batches (like picks including defaults including constraints including storage, primary key (key))
    with (toast_tuple_target = 8160);
create index push_batches_decided_at on push_batches using brin (decided_at);
create table order_mails (like picks including defaults including constraints including storage, primary key (key))
    with (toast_tuple_target = 8160);
create index order_mails_decided_at on order_mails using brin (decided_at);

-- That the sending of a part of a batch has begun, and whom it may have reached: written before the first message, so
-- whoever finds it sends nothing more.
create table sendings (
    channel  text not null,
    batch_id text not null,
    part     integer not null,
    people   jsonb not null,
    begun_at timestamptz not null default now(),
    primary key (channel, batch_id, part)
);
create index sendings_begun_at on sendings using brin (begun_at);

-- When the next message of a lane may go out, over all processes; and what was granted, message after message from
-- `starts_at` on, for whoever checks.
create table send_rates (
    lane    text primary key,
    next_at timestamptz not null
);
create table send_grants (
    id         bigint generated always as identity primary key,
    lane       text not null,
    starts_at  timestamptz not null,
    messages   integer not null,
    per_second double precision not null
);
create index send_grants_starts_at on send_grants using brin (starts_at);
