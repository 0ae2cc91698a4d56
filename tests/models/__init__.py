"""Tests of the model layer: adapter, cache, masks, checkpoints."""
