package io.waybill.peer;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanBuilder;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import io.opentelemetry.api.trace.Tracer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Instant;
import java.util.ArrayList;
import java.util.UUID;
import java.util.concurrent.atomic.LongAdder;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * What every stage does with a record: drop it if its order was done before, decide, trace with links to all earlier
 * stages, stamp the waybill, keep the order in the store, write the event with its CloudEvents headers.
 *
 * <p>Simplified: a record that cannot be read ends the client (Waybill writes it to {@code dead.<stage>} and goes on),
 * events are not checked against the rules beyond what JSON needs, and a repeated order is dropped, where Waybill
 * writes its answer again.
 */
final class StageProcessor implements Processor<String, byte[], String, byte[]> {
    /** Repeated orders that were dropped, and spans that were made, by all stages of the process. */
    static final LongAdder REPEATS = new LongAdder(), SPANS = new LongAdder();

    private static final ObjectMapper JSON = new ObjectMapper().setPropertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE)
        .configure(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, false).setSerializationInclusion(JsonInclude.Include.NON_NULL);
    private static final ObjectReader READER = JSON.readerFor(Order.class);
    private static final ObjectWriter WRITER = JSON.writerFor(Order.class);

    private static final AttributeKey<String> SYSTEM = AttributeKey.stringKey("messaging.system"),
        OPERATION_NAME = AttributeKey.stringKey("messaging.operation.name"),
        OPERATION_TYPE = AttributeKey.stringKey("messaging.operation.type"),
        DESTINATION = AttributeKey.stringKey("messaging.destination.name"),
        PARTITION = AttributeKey.stringKey("messaging.destination.partition.id"),
        KEY = AttributeKey.stringKey("messaging.kafka.message.key"),
        GROUP = AttributeKey.stringKey("messaging.consumer.group.name"),
        MESSAGE_ID = AttributeKey.stringKey("messaging.message.id"), ORDER_ID = AttributeKey.stringKey("order.id"),
        LINK_TYPE = AttributeKey.stringKey("link.type"), LINK_STAGE = AttributeKey.stringKey("link.stage");
    private static final AttributeKey<Long> OFFSET = AttributeKey.longKey("messaging.kafka.offset");
    private static final byte[] SPEC_VERSION = "1.0".getBytes(UTF_8), CONTENT_TYPE = "application/json".getBytes(UTF_8);

    private final Stage stage;
    private final Tracer tracer;
    private final String topic, group;
    private final byte[] type, source;
    private ProcessorContext<String, byte[]> context;
    private KeyValueStore<String, String> done;

    StageProcessor(Stage stage, Tracer tracer, String prefix, String group) {
        this.stage = stage;
        this.tracer = tracer;
        this.topic = prefix + stage.from;
        this.group = group;
        this.type = (stage.to + ".v1").getBytes(UTF_8);
        this.source = ("/waybill/" + stage.id).getBytes(UTF_8);
    }

    /** The name of a stage's store. */
    static String store(Stage stage) {
        return stage.id + "-done";
    }

    @Override public void init(ProcessorContext<String, byte[]> context) {
        this.context = context;
        this.done = context.getStateStore(store(stage));
    }

    @Override public void process(Record<String, byte[]> record) {
        Instant start = Instant.now();
        Order order;
        try {
            order = READER.readValue(record.value());
        } catch (IOException e) {
            throw new UncheckedIOException("not an order, on " + topic, e);
        }
        if (done.get(order.orderId) != null) {
            REPEATS.increment();
            return;
        }
        RecordMetadata at = context.recordMetadata().orElseThrow();
        Span span = begin(order, record.headers(), at, start);
        Instant end = Instant.now();
        SPANS.add(stage == Stage.PICK ? 1 + order.lines.size() : 1);
        stage.decide(order, new Stage.Work(tracer, span, start, end, at.partition(), at.offset()));
        span.end(end);

        Order.Stamp stamp = stamp(span.getSpanContext(), start, end);
        if (order.waybill == null) order.waybill = new ArrayList<>(1);
        order.waybill.add(stamp);
        byte[] event;
        try {
            event = WRITER.writeValueAsBytes(order);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        String traceparent = "00-" + stamp.traceId + '-' + stamp.spanId + '-' + stamp.traceFlags;
        done.put(order.orderId, traceparent);
        context.forward(new Record<>(order.orderId, event, record.timestamp(), headers(order, stamp, traceparent, record.headers())));
    }

    /** The stage span: a new trace, linked to every stamp, and to the record's own span where that is not among them. */
    private Span begin(Order order, Headers headers, RecordMetadata at, Instant start) {
        SpanBuilder span = tracer.spanBuilder(stage.span).setNoParent().setSpanKind(SpanKind.CONSUMER).setStartTimestamp(start);
        String producer = text(headers, "traceparent");
        boolean linked = producer == null || producer.length() < 55;
        if (order.waybill != null) {
            for (Order.Stamp stamp : order.waybill) {
                span.addLink(remote(stamp.traceId, stamp.spanId, stamp.traceFlags),
                    Attributes.of(LINK_TYPE, "follows_from", LINK_STAGE, stamp.stage));
                linked = linked || producer.startsWith(stamp.spanId, 36) && producer.startsWith(stamp.traceId, 3);
            }
        }
        if (!linked) {
            String from = text(headers, "ce_source");
            span.addLink(remote(producer.substring(3, 35), producer.substring(36, 52), producer.substring(53, 55)),
                Attributes.of(LINK_TYPE, "consumed", LINK_STAGE, from == null ? "unknown" : from.substring(from.lastIndexOf('/') + 1)));
        }
        return span.setAttribute(SYSTEM, "kafka").setAttribute(OPERATION_NAME, "process").setAttribute(OPERATION_TYPE, "process")
            .setAttribute(DESTINATION, topic).setAttribute(PARTITION, Integer.toString(at.partition())).setAttribute(OFFSET, at.offset())
            .setAttribute(GROUP, group).setAttribute(KEY, order.orderId).setAttribute(MESSAGE_ID, text(headers, "ce_id"))
            .setAttribute(ORDER_ID, order.orderId).startSpan();
    }

    private Order.Stamp stamp(SpanContext span, Instant start, Instant end) {
        Order.Stamp stamp = new Order.Stamp();
        stamp.stage = stage.id;
        stamp.traceId = span.getTraceId();
        stamp.spanId = span.getSpanId();
        stamp.traceFlags = span.getTraceFlags().asHex();
        stamp.startedAt = start.toString();
        stamp.endedAt = end.toString();
        return stamp;
    }

    private Headers headers(Order order, Order.Stamp stamp, String traceparent, Headers incoming) {
        byte[] current = traceparent.getBytes(UTF_8);
        Header origin = incoming.lastHeader("ce_traceparent");
        UUID id = UUID.nameUUIDFromBytes((stage.id + '/' + stage.to + '/' + order.orderId).getBytes(UTF_8));
        return new RecordHeaders().add("ce_specversion", SPEC_VERSION).add("ce_id", id.toString().getBytes(UTF_8))
            .add("ce_type", type).add("ce_source", source).add("ce_time", stamp.endedAt.getBytes(UTF_8))
            .add("ce_subject", order.orderId.getBytes(UTF_8)).add("content-type", CONTENT_TYPE)
            .add("ce_traceparent", origin == null ? current : origin.value()).add("traceparent", current);
    }

    private static String text(Headers headers, String name) {
        Header header = headers.lastHeader(name);
        return header == null ? null : new String(header.value(), UTF_8);
    }

    private static SpanContext remote(String traceId, String spanId, String flags) {
        return SpanContext.createFromRemoteParent(traceId, spanId, TraceFlags.fromHex(flags, 0), TraceState.getDefault());
    }
}
