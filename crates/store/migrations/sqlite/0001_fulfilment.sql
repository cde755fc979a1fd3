-- The same tables as for Postgres, where the reasons stand. Times are Unix seconds.
create table picks (
    key        text primary key,
    version    integer not null,
    state      text not null,
    answer     blob not null,
    decided_at integer not null default (unixepoch())
) strict;
create index picks_decided_at on picks (decided_at);

create table packs (
    key        text primary key,
    version    integer not null,
    state      text not null,
    answer     blob not null,
    decided_at integer not null default (unixepoch())
) strict;
create index packs_decided_at on packs (decided_at);

create table shipments (
    key        text primary key,
    version    integer not null,
    state      text not null,
    answer     blob not null,
    decided_at integer not null default (unixepoch())
) strict;
create index shipments_decided_at on shipments (decided_at);

create table parked (
    id           integer primary key autoincrement,
    stage        text not null,
    key          text not null,
    origin       text not null,
    record       blob not null,
    why          text not null,
    attempts     integer not null,
    parked_at    real not null default (unixepoch('subsec')),
    due_at       real not null,
    leased_until real not null default 0,
    leases       integer not null default 0,
    unique (stage, origin)
) strict;
create index parked_key on parked (stage, key, id);

create table bins (
    product_id text not null,
    bin        text not null,
    zone       text not null,
    quantity   integer not null check (quantity >= 0),
    primary key (product_id, bin)
) strict;

create table tracking_serials (last integer not null) strict;
insert into tracking_serials (last) values (0);
