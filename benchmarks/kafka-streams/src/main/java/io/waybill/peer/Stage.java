package io.waybill.peer;

import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Context;
import java.time.Instant;
import java.time.LocalDate;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeSet;

/**
 * The three stages: what each reads, writes and decides, with the attributes, events and child spans of
 * {@code docs/telemetry.md}.
 *
 * <p>Simplified: decisions are of constant time and without any shared state. Waybill keeps stock per bin, searches for
 * the smallest boxes, compares carriers and draws serial numbers; here a bin is a hash of the product and always full,
 * every order goes into one parcel whose box is chosen by weight, and the carrier follows from the service.
 */
enum Stage {
    PICK("pick", "warehouse.pick", "orders.new", "orders.picked") {
        @Override void decide(Order order, Work work) {
            Context parent = Context.root().with(work.span);
            TreeSet<String> zones = new TreeSet<>();
            for (Order.Line line : order.lines) {
                int hash = line.productId.hashCode() & 0x7fff_ffff;
                String zone = ZONES[hash % ZONES.length];
                String bin = zone + '-' + (100 + hash % 900) + '-' + hash % 4;
                line.bins = List.of(new Order.Bin(zone, bin, line.quantity));
                zones.add(zone);
                work.tracer.spanBuilder("warehouse.pick_item").setParent(parent).setStartTimestamp(work.start)
                    .setAttribute(PRODUCT_ID, line.productId).setAttribute(PRODUCT_SKU, line.sku).setAttribute(BIN, bin)
                    .setAttribute(REQUESTED, (long) line.quantity).setAttribute(PICKED, (long) line.quantity)
                    .startSpan().end(work.end);
            }
            work.span.setAttribute(ZONE, String.join(",", zones));
        }
    },
    PACK("pack", "warehouse.pack", "orders.picked", "orders.packed") {
        @Override void decide(Order order, Work work) {
            Order.Parcel parcel = new Order.Parcel();
            parcel.parcel = 1;
            parcel.items = new ArrayList<>(order.lines.size());
            long units = 0, goods = 0;
            for (Order.Line line : order.lines) {
                Order.Item item = new Order.Item();
                item.line = line.line;
                item.productId = line.productId;
                item.sku = line.sku;
                item.quantity = line.quantity;
                parcel.items.add(item);
                units += line.quantity;
                goods += (long) line.quantity * line.weightG;
            }
            boolean light = goods <= 9_680;
            parcel.box = light ? "M" : "XL";
            parcel.weightG = goods + (light ? 320 : 1_150);
            parcel.sizeMm = light ? M_MM : XL_MM;
            order.lines = null;
            order.slip = "PS-" + order.orderId;
            order.parcels = List.of(parcel);
            work.span.setAttribute(BOX_SIZE, parcel.box).setAttribute(WEIGHT_KG, parcel.weightG / 1_000.0)
                .addEvent("packing_slip", Attributes.of(SLIP, order.slip, UNITS, units), work.end)
                .addEvent("sealed", ONE_PARCEL, work.end);
        }
    },
    SHIP("ship", "shipping.dispatch", "orders.packed", "orders.shipped") {
        @Override void decide(Order order, Work work) {
            boolean express = "express".equals(order.service);
            Order.Parcel parcel = order.parcels.get(0);
            parcel.sizeMm = null;
            parcel.items = null;
            // Nine digits for the first hundred million records of a partition; the same, however often it is shipped.
            parcel.trackingNumber = (express ? "EX" : "CA") + ((work.partition + 1) * 100_000_000L + work.offset) + "DE";
            order.slip = null;
            order.carrier = express ? "swiftair" : "parcelpost";
            order.cost = express ? EXPRESS : STANDARD;
            order.estimatedDelivery = LocalDate.ofInstant(work.end, ZoneOffset.UTC).plusDays(express ? 1 : 3).toString();
            parcel.label = "^XA^CI28^PW812^LL1218\n^FO40,40^A0N,60,60^FD" + order.carrier
                + "^FS\n^FO40,140^BY3^BCN,220,Y,N,N^FH_^FD" + parcel.trackingNumber
                + "^FS\n^FO40,460^A0N,36,36^FH_^FDOrder " + order.orderId
                + "^FS\n^FO40,520^A0N,36,36^FDParcel 1/1^FS\n^FO40,580^A0N,36,36^FDWeight " + parcel.weightG
                + " g^FS\n^FO40,640^A0N,60,60^FH_^FD" + order.country + "^FS\n^XZ\n";
            work.span.setAttribute(CARRIER, order.carrier).setAttribute(TRACKING, parcel.trackingNumber)
                .setAttribute(DELIVERY, order.estimatedDelivery)
                .addEvent("label", ONE_LABEL, work.end).addEvent("handed_over", ONE_PARCEL, work.end);
        }
    };

    /** What a decision is given beside the order: the stage span, its interval, and where the record stood. */
    record Work(Tracer tracer, Span span, Instant start, Instant end, int partition, long offset) {}

    private static final String[] ZONES = {"A", "B", "C", "D"};
    private static final int[] M_MM = {386, 306, 188}, XL_MM = {612, 512, 420};
    private static final Order.Cost STANDARD = new Order.Cost(495, "EUR"), EXPRESS = new Order.Cost(1290, "EUR");
    private static final AttributeKey<String> PRODUCT_ID = AttributeKey.stringKey("product.id"),
        PRODUCT_SKU = AttributeKey.stringKey("product.sku"), BIN = AttributeKey.stringKey("warehouse.bin"),
        ZONE = AttributeKey.stringKey("warehouse.zone"), BOX_SIZE = AttributeKey.stringKey("pack.box_size"),
        SLIP = AttributeKey.stringKey("slip"), CARRIER = AttributeKey.stringKey("shipping.carrier"),
        TRACKING = AttributeKey.stringKey("shipping.tracking_number"),
        DELIVERY = AttributeKey.stringKey("shipping.estimated_delivery");
    private static final AttributeKey<Long> REQUESTED = AttributeKey.longKey("quantity.requested"),
        PICKED = AttributeKey.longKey("quantity.picked"), UNITS = AttributeKey.longKey("units");
    private static final AttributeKey<Double> WEIGHT_KG = AttributeKey.doubleKey("pack.weight_kg");
    private static final Attributes ONE_PARCEL = Attributes.of(AttributeKey.longKey("parcels"), 1L),
        ONE_LABEL = Attributes.of(AttributeKey.longKey("labels"), 1L);

    /** The stage's name, the name of its span, the topics it reads and writes (without the prefix). */
    final String id, span, from, to;

    Stage(String id, String span, String from, String to) {
        this.id = id;
        this.span = span;
        this.from = from;
        this.to = to;
    }

    /** Turns the event that was read into the one to write (all but its stamp), and tells the span what was decided. */
    abstract void decide(Order order, Work work);
}
