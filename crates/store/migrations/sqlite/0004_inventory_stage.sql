-- The same tables as for Postgres, where the reasons stand. Times are Unix seconds.
create table stock_moves (
    key        text primary key,
    version    integer not null,
    state      text not null,
    answer     blob not null,
    decided_at integer not null default (unixepoch())
) strict;
create index stock_moves_decided_at on stock_moves (decided_at);
