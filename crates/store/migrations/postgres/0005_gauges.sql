-- Orders on their way, by what has become of them and when they were asked for: the oldest of each is found at once, and
-- a year of orders that are with their customers is not in it. One that was paid back in full is on its way no more.
-- Times in a state are RFC 3339 in UTC: byte order is their order.
create index checkouts_open on checkouts ((state ->> 'status'), (state ->> 'requested_at') collate "C")
    where state ->> 'status' in ('confirmed', 'picked', 'packed')
        and (coalesce(state ->> 'refunded_minor', '0') = '0'
            or state ->> 'refunded_minor' <> state -> 'total' ->> 'amount_minor');
