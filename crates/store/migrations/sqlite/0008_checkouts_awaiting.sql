-- Checkouts and refunds that are not at their end, for people on call: few, among all the orders that are kept.
create index checkouts_awaiting on checkouts (key) where state ->> 'awaits' is not null;
