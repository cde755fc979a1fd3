-- Journeys. A projection of the topics: drop it, and `waybill replay` makes the same rows again.
-- Times are nanoseconds since 1970, ids lower hex. A target is of one deployment: topics stand here without their prefix.
-- Until a first replay has ended there is no index, and what stands twice on the topics stands here twice (fill.rs).

-- How far each partition was read.
create table read_to (
    topic text not null,
    partition_id integer not null,
    next_offset integer not null,
    primary key (topic, partition_id)
) without rowid;

-- Where each event stands. Of two records with one ce_id the one that stands earlier.
create table records (
    ce_id text not null, -- of a dead letter: trace and span that refused it
    topic text not null,
    partition_id integer not null,
    record_offset integer not null,
    time_ns integer not null,
    order_id text,
    reason text -- of a dead letter: stage, code and words
);

-- Stage spans and their parts. What belongs to a span is written with it, in one row: its links, events and children. The
-- views below show them one by one.
create table stage_spans (
    trace_id text not null,
    span_id text not null,
    parent_span_id text,
    trace_flags integer not null,
    stage text not null,
    scope text not null,
    version text not null,
    name text not null,
    kind text not null, -- `server`: as of accepting the request, not as it was exported in the end
    start_ns integer not null,
    decided_ns integer not null, -- when its stage began to decide: its children begin then. Later than its start if it was parked
    end_ns integer not null,
    stamp boolean not null, -- whether it published its record, and so stands on the waybill of what follows
    order_id text,
    input text, -- JSON, the record the span is about: the attributes messaging.* of the contract
    attributes text not null, -- JSON, the others
    status text, -- what went wrong; null where nothing did
    links text not null,
    events text not null,
    children text not null,
    topic text not null, -- the record that tells of it
    partition_id integer not null,
    record_offset integer not null
);

-- All spans: stage spans, their parts, and the children of both, by (trace_id, span_id).
create view spans as
    select trace_id, span_id, parent_span_id, trace_flags, stage, scope, version, name, kind, start_ns, end_ns, stamp, order_id,
        input, attributes, status, topic, partition_id, record_offset
    from stage_spans
    union all
    select s.trace_id, cast(c.value ->> 'span_id' as text), s.span_id, s.trace_flags, s.stage, s.scope, s.version,
        cast(c.value ->> 'name' as text), 'internal', s.decided_ns, s.end_ns, false, s.order_id, null, coalesce(c.value -> 'attributes', '{}'), null, s.topic,
        s.partition_id, s.record_offset
    from stage_spans s, json_each(s.children) c;

-- The casts give the columns the affinity of what they are compared with: without it no index is made for a join.
create view span_links as
    select s.trace_id, s.span_id, l.key as position, cast(l.value ->> 'trace_id' as text) as linked_trace_id,
        cast(l.value ->> 'span_id' as text) as linked_span_id, l.value ->> 'trace_flags' as linked_trace_flags,
        cast(l.value ->> 'type' as text) as type, cast(l.value ->> 'stage' as text) as stage
    from stage_spans s, json_each(s.links) l;

create view span_events as
    select s.trace_id, s.span_id, e.key as position, e.value ->> 'name' as name,
        cast(e.value ->> 'time_ns' as integer) as time_ns, coalesce(e.value -> 'attributes', '{}') as attributes
    from stage_spans s, json_each(s.events) e;
