-- Orders that stopped: nothing was heard of them since $1 (nanoseconds since 1970), and they are not at an end.
with heard as (
    select order_id, time_ns, topic,
        case topic when 'checkout.requested' then 1 when 'orders.new' then 2
            when 'orders.picked' then 3 when 'orders.packed' then 4 else 0 end as reached
    from records
    where order_id is not null
),
orders as (
    select order_id,
        max(reached) as reached,
        -- Of an order whose dead letter went back to its stage was heard then.
        max(case when reached > 0 or topic like 'redrive.%' then time_ns end) as since_ns,
        max(case when topic like 'redrive.%' then time_ns end) as redriven_ns,
        max(case when topic in ('orders.shipped', 'orders.cancelled', 'checkout.rejected') then 1 else 0 end) as ended,
        max(case when topic = 'orders.short' then 1 else 0 end) as short
    from heard
    group by order_id
),
stopped as (
    select order_id,
        case reached when 1 then 'checkout' when 2 then 'pick' when 3 then 'pack' else 'ship' end as waits_for,
        since_ns,
        redriven_ns
    from orders
    -- Of an order that is short and was never picked, nothing was in the bins: that is its end.
    where reached > 0 and ended = 0 and not (short = 1 and reached = 2) and since_ns < $1
),
letters as (
    select order_id, topic, max(reason) as reason, max(time_ns) as time_ns
    from records
    where reason is not null
    group by order_id, topic
)
select s.order_id, s.waits_for, s.since_ns, l.reason
from stopped s
-- What another stage refused, or what went back since, is not why it waits.
left join letters l on l.order_id = s.order_id and l.topic = 'dead.' || s.waits_for
    and l.time_ns >= coalesce(s.redriven_ns, 0)
order by s.since_ns, s.order_id
