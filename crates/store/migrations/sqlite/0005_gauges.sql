-- The same index as for Postgres, where the reasons stand.
create index checkouts_open on checkouts (state ->> 'status', state ->> 'requested_at')
    where state ->> 'status' in ('confirmed', 'picked', 'packed')
        and (coalesce(state ->> 'refunded_minor', 0) = 0
            or state ->> 'refunded_minor' <> state -> 'total' ->> 'amount_minor');
