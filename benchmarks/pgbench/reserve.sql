-- One reservation a transaction, by the statements of the ledger (processors/inventory/src/rows.rs) for a batch of one.
\set product random(1, :products)
\set order random(1, 1000000000000)
begin;
select * from stock where product_id = any(array(
    select unnest(array['p-' || :product]::text[]) union
    select product_id from reservations where order_id = any(array['o-' || :order]::text[]) and state <> 'released'))
order by product_id for update \gset stock_
select (extract(epoch from now()) * 1000000)::int8 as clock, order_id, coalesce(product_id, '') as product_id,
    coalesce(quantity, 0) as quantity, coalesce(lost, 0) as lost, coalesce(state, '') as state,
    coalesce((extract(epoch from expires_at) * 1000000)::int8, 0) as expires_at
from (select) as clock
left join reservations on order_id = any(array['o-' || :order]::text[]) and state <> 'released' \gset line_
with c as (
    select * from unnest(array[:stock_product_id]::text[], array[:stock_received]::int8[],
        array[:stock_available::int8 - 1]::int8[], array[:stock_reserved::int8 + 1]::int8[], array[:stock_sold]::int8[],
        array[:stock_shrinkage]::int8[], array[:stock_version::int8 + 1]::int8[],
        array[:stock_last_zero_version]::int8[], array[true]::bool[]) as c (product_id, received, available, reserved,
        sold, shrinkage, version, last_zero_version, level)),
written as (
    update stock s set received = c.received, available = c.available, reserved = c.reserved,
        sold = c.sold, shrinkage = c.shrinkage, version = c.version,
        last_zero_version = c.last_zero_version
    from c where s.product_id = c.product_id)
insert into levels (product_id, version, available, last_zero_version)
select product_id, version, available, last_zero_version from c where level;
insert into reservations (order_id, product_id, quantity, lost, state, expires_at)
select order_id, product_id, quantity, lost, state,
    timestamptz 'epoch' + expires_at * interval '1 microsecond'
from unnest(array['o-' || :order]::text[], array[:stock_product_id]::text[], array[1]::int8[], array[0]::int8[],
    array['held']::text[], array[:line_clock::int8 + 900000000]::int8[])
    as c (order_id, product_id, quantity, lost, state, expires_at)
on conflict (order_id, product_id) do update set quantity = excluded.quantity,
    lost = excluded.lost, state = excluded.state, expires_at = excluded.expires_at;
commit;
