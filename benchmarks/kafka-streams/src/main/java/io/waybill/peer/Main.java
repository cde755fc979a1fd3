package io.waybill.peer;

import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.exporter.otlp.trace.OtlpGrpcSpanExporter;
import io.opentelemetry.sdk.common.CompletableResultCode;
import io.opentelemetry.sdk.resources.Resource;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.SdkTracerProviderBuilder;
import io.opentelemetry.sdk.trace.data.SpanData;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;
import io.opentelemetry.sdk.trace.export.SpanExporter;
import java.time.Duration;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.LongAdder;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.Stores;

/**
 * Waybill's chain of stages on Kafka Streams, for comparison: {@code orders.new -> pick -> orders.picked -> pack ->
 * orders.packed -> ship -> orders.shipped}, exactly once (EOS v2), every order known to each stage in a RocksDB store.
 *
 * <p>Says {@code RUNNING} when it is; on SIGTERM closes, exports what is queued and says how many spans were lost. Simplified
 * in what {@link Stage} and {@link StageProcessor} name; there is no {@code orders.short} and there are no metrics.
 */
public final class Main {
    private static final int SPAN_QUEUE = 65_536, SPAN_BATCH = 4_096;

    public static void main(String[] args) throws InterruptedException {
        Map<String, String> options = options(args);
        String prefix = options.getOrDefault("prefix", ""), only = options.getOrDefault("stage", "all");
        List<Stage> stages = Arrays.stream(Stage.values()).filter(s -> only.equals("all") || only.equals(s.id)).toList();
        if (stages.isEmpty()) throw new IllegalArgumentException("--stage is all, pick, pack or ship, not " + only);
        String group = prefix + "peer-" + only, otlp = options.getOrDefault("otlp", "");

        Delivered exporter = otlp.isEmpty() ? null : new Delivered(OtlpGrpcSpanExporter.builder().setEndpoint(otlp).build(), new LongAdder());
        SdkTracerProvider spans = tracing(only, exporter);
        Tracer tracer = spans.tracerBuilder("waybill.fulfilment").setInstrumentationVersion("0.1.0")
            .setSchemaUrl("https://opentelemetry.io/schemas/1.44.0").build();

        KafkaStreams streams = new KafkaStreams(topology(stages, tracer, prefix, group), settings(options, group));
        CountDownLatch ended = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(e -> {
            e.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING) System.out.println("RUNNING");
            if (now.hasCompletedShutdown()) ended.countDown();
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close(Duration.ofSeconds(20));
            spans.shutdown().join(60, TimeUnit.SECONDS);
            System.out.println("REPEATS " + StageProcessor.REPEATS);
            System.out.println("CLOSED dropped_spans=" + (exporter == null ? 0 : StageProcessor.SPANS.sum() - exporter.count.sum()));
        }));
        streams.start();
        ended.await();
        System.exit(1); // by itself it never ends; where it was told to, this waits for the hook above
    }

    private static Map<String, String> options(String[] args) {
        Map<String, String> options = new TreeMap<>();
        for (String arg : args) {
            int sign = arg.indexOf('=');
            if (!arg.startsWith("--") || sign < 0) throw new IllegalArgumentException("--name=value expected, not " + arg);
            String name = arg.substring(2, sign);
            if (!name.startsWith("conf.") && !List.of("brokers", "prefix", "otlp", "state-dir", "threads", "stage").contains(name))
                throw new IllegalArgumentException("no option --" + name);
            options.put(name, arg.substring(sign + 1));
        }
        for (String name : List.of("brokers", "state-dir"))
            if (!options.containsKey(name)) throw new IllegalArgumentException("--" + name + "=… is missing");
        return options;
    }

    private static Properties settings(Map<String, String> options, String group) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, group);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.get("brokers"));
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, options.getOrDefault("threads", "2"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, options.get("state-dir"));
        options.forEach((name, value) -> { if (name.startsWith("conf.")) settings.put(name.substring(5), value); });
        return settings;
    }

    private static Topology topology(List<Stage> stages, Tracer tracer, String prefix, String group) {
        StreamsBuilder builder = new StreamsBuilder();
        for (Stage stage : stages) {
            String store = StageProcessor.store(stage);
            builder.addStateStore(Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(store), Serdes.String(), Serdes.String()));
            builder.stream(prefix + stage.from, Consumed.with(Serdes.String(), Serdes.ByteArray()))
                .process(() -> new StageProcessor(stage, tracer, prefix, group), store)
                .to(prefix + stage.to, Produced.with(Serdes.String(), Serdes.ByteArray()));
        }
        return builder.build();
    }

    /** Without an exporter spans are made and sampled just the same, and go nowhere. */
    private static SdkTracerProvider tracing(String stage, Delivered exporter) {
        SdkTracerProviderBuilder builder = SdkTracerProvider.builder().setResource(Resource.getDefault().merge(Resource.create(Attributes.of(
            AttributeKey.stringKey("service.name"), "waybill-peer-" + stage, AttributeKey.stringKey("service.version"), "0.1.0",
            AttributeKey.stringKey("service.instance.id"), UUID.randomUUID().toString()))));
        if (exporter != null) builder.addSpanProcessor(BatchSpanProcessor.builder(exporter)
            .setMaxQueueSize(SPAN_QUEUE).setMaxExportBatchSize(SPAN_BATCH).build());
        return builder.build();
    }

    /** Counts the spans that the collector took; made less delivered is lost, whether the queue was full or an export failed. */
    private record Delivered(SpanExporter to, LongAdder count) implements SpanExporter {
        @Override public CompletableResultCode export(Collection<SpanData> spans) {
            int size = spans.size(); // the processor empties the list afterwards
            CompletableResultCode result = to.export(spans);
            return result.whenComplete(() -> { if (result.isSuccess()) count.add(size); });
        }

        @Override public CompletableResultCode flush() {
            return to.flush();
        }

        @Override public CompletableResultCode shutdown() {
            return to.shutdown();
        }
    }
}
