-- What each stage has decided, under its business key, with the answer it published: a repeat publishes
-- the same bytes again. Answers do not compress well enough to pay for it; kept plain and, as far as they fit, in line.
create table picks (
    key        text primary key,
    version    integer not null,
    state      jsonb not null,
    answer     bytea not null,
    decided_at timestamptz not null default now()
) with (toast_tuple_target = 8160);
alter table picks alter column answer set storage external;
create index picks_decided_at on picks using brin (decided_at);

create table packs (like picks including defaults including constraints including storage, primary key (key))
    with (toast_tuple_target = 8160);
create index packs_decided_at on packs using brin (decided_at);

create table shipments (like picks including defaults including constraints including storage, primary key (key))
    with (toast_tuple_target = 8160);
create index shipments_decided_at on shipments using brin (decided_at);

-- Records that must wait, in the order of their key. Only the first of a key has a due time that counts.
create table parked (
    id           bigint generated always as identity,
    stage        text not null,
    key          text not null,
    origin       text not null,
    record       bytea not null,
    why          text not null,
    attempts     integer not null,
    parked_at    timestamptz not null default now(),
    due_at       timestamptz not null,
    leased_until timestamptz not null default '-infinity',
    -- Counts the leases: only who holds the last one may settle.
    leases       integer not null default 0,
    primary key (stage, key, id),
    -- A record that is delivered again is parked already.
    unique (stage, origin)
);

-- Where goods lie. Owned by pick.
create table bins (
    product_id text not null,
    bin        text not null,
    zone       text not null,
    quantity   bigint not null check (quantity >= 0),
    primary key (product_id, bin)
);

-- Serial numbers of tracking numbers: each is given out once. Owned by ship.
create sequence tracking_serials;
