//! Back in stock: who waits for a product, when it is back, who is told, and how fast.
