"""One suite for every registered method: whatever is in `registry.METHODS` is proven here, without being named."""
