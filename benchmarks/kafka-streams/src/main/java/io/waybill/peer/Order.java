package io.waybill.peer;

import java.util.List;

/**
 * An order event, in the shapes of {@code schemas/orders.*.v1.json}; JSON names are these in snake case.
 *
 * <p>Simplified: one class stands for all four events. A stage sets what its event adds and nulls what it leaves out,
 * since null fields are not written.
 */
final class Order {
    public String orderId, customerId, country, service;
    /** orders.new and orders.picked. */
    public List<Line> lines;
    /** orders.packed. */
    public String slip;
    /** orders.shipped. */
    public String carrier;
    public Cost cost;
    public String estimatedDelivery;
    /** orders.packed and orders.shipped. */
    public List<Parcel> parcels;
    public List<Stamp> waybill;

    static final class Line {
        public int line;
        public String productId, sku;
        public int quantity, weightG;
        public int[] sizeMm;
        /** From orders.picked on. */
        public List<Bin> bins;
    }

    record Bin(String zone, String bin, int quantity) {}

    static final class Parcel {
        public int parcel;
        public String box;
        public long weightG;
        /** orders.packed only. */
        public int[] sizeMm;
        public List<Item> items;
        /** orders.shipped only. */
        public String trackingNumber, label;
    }

    static final class Item {
        public int line;
        public String productId, sku;
        public int quantity;
    }

    record Cost(long amountMinor, String currency) {}

    static final class Stamp {
        public String stage, traceId, spanId, traceFlags, startedAt, endedAt;
    }
}
