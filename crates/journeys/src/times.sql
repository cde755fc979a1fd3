-- How long stages work on an order, and how long an order waits for them since the last stage before; nanoseconds.
with measured as (
    select s.stage, 'work' as what, s.end_ns - s.start_ns as ns
    from stage_spans s
    where s.input is not null and s.topic not like 'dead.%'
    union all
    select s.stage, 'wait' as what, s.start_ns - max(p.end_ns) as ns
    from stage_spans s
    join span_links l on l.trace_id = s.trace_id and l.span_id = s.span_id and l.type = 'follows_from'
    join stage_spans p on p.trace_id = l.linked_trace_id and p.span_id = l.linked_span_id
    where s.input is not null and s.topic not like 'dead.%'
    group by s.stage, s.trace_id, s.span_id, s.start_ns
),
ranked as (
    select stage, what, ns,
        row_number() over (partition by stage, what order by ns) as place,
        count(*) over (partition by stage, what) as total
    from measured
)
select stage, what, total as orders,
    min(case when place * 100 >= total * 50 then ns end) as p50_ns,
    min(case when place * 100 >= total * 90 then ns end) as p90_ns,
    min(case when place * 100 >= total * 99 then ns end) as p99_ns
from ranked
group by stage, what, total
order by case stage when 'checkout' then 1 when 'pick' then 2 when 'pack' then 3 else 4 end, what
