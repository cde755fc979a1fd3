-- The least that a reservation of one line can be: one statement, which is one transaction.
\set product random(1, :products)
\set order random(1, 1000000000000)
with taken as (
    update stock set available = available - 1, reserved = reserved + 1, version = version + 1
    where product_id = 'p-' || :product and available >= 1
    returning product_id, version, available, last_zero_version),
told as (
    insert into levels (product_id, version, available, last_zero_version)
    select product_id, version, available, last_zero_version from taken)
insert into reservations (order_id, product_id, quantity, state, expires_at)
select 'o-' || :order, product_id, 1, 'held', now() + interval '15 minutes' from taken;
