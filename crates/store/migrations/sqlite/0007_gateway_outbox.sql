-- The same tables as for Postgres, where the reasons stand. Times are Unix seconds.
create table gateway_outbox (
    id         integer primary key autoincrement,
    message    blob not null,
    created_at real not null default (unixepoch('subsec'))
) strict;
insert into gateway_outbox (message, created_at)
    select message, requested_at from checkout_requests where published_at is null order by requested_at;
drop index checkout_requests_unpublished;
alter table checkout_requests drop column message;
alter table checkout_requests drop column published_at;

create table cancel_requests (
    order_id     text primary key,
    requested_at real not null default (unixepoch('subsec'))
) strict;
create index cancel_requests_requested_at on cancel_requests (requested_at);
