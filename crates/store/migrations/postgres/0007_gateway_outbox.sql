-- What the gateway is still to publish, encoded, trace context and all: a repeat publishes the same bytes. Written in the
-- transaction that takes the request; deleted once all in-sync replicas have the message.
create table gateway_outbox (
    id         bigint generated always as identity primary key,
    message    bytea not null,
    created_at timestamptz not null default now()
);
insert into gateway_outbox (message, created_at)
    select message, requested_at from checkout_requests where published_at is null order by requested_at;
alter table checkout_requests drop column message, drop column published_at;

-- Orders whose customers asked to cancel them. Owned by the gateway: each is asked for once, ship decides.
create table cancel_requests (
    order_id     text primary key,
    requested_at timestamptz not null default now()
);
create index cancel_requests_requested_at on cancel_requests (requested_at);
