-- Orders that were late: those whose journey from one stage to another took longer than promised, or takes longer already.
-- What `waybill late` asks; runs on SQLite and Postgres. A stage span links to the spans of all stages before it, whatever
-- their traces: the join is over these links, on (trace id, span id).
--   $1  the stage it counts from: checkout or pick
--   $2  the stage it should have got to: pick, pack or ship
--   $3  how long that may take, nanoseconds
--   $4  the time now, nanoseconds since 1970: for those that are still on their way
with arrived as (
    select l.linked_trace_id as trace_id, l.linked_span_id as span_id, min(s.end_ns) as end_ns
    from spans s
    join span_links l on l.trace_id = s.trace_id and l.span_id = s.span_id
    where s.stage = $2 and s.stamp and l.type = 'follows_from' and l.stage = $1
    group by l.linked_trace_id, l.linked_span_id
),
-- They will never arrive: cancelled, rejected, or nothing of them was found in the bins.
ended as (
    select order_id
    from records
    where order_id is not null
    group by order_id
    having max(case when topic in ('orders.cancelled', 'checkout.rejected') then 1 else 0 end) = 1
        or (max(case when topic = 'orders.short' then 1 else 0 end) = 1
            and max(case when topic = 'orders.picked' then 1 else 0 end) = 0)
)
select
    b.order_id,
    b.end_ns as from_ns,
    a.end_ns as to_ns,
    coalesce(a.end_ns, $4) - b.end_ns as took_ns
from spans b
left join arrived a on a.trace_id = b.trace_id and a.span_id = b.span_id
left join ended e on e.order_id = b.order_id
where b.stage = $1
    and b.stamp
    and (a.end_ns is not null or e.order_id is null)
    and coalesce(a.end_ns, $4) - b.end_ns > $3
order by took_ns desc, b.order_id
