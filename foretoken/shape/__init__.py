"""Tree shapes: how wide a draft is."""
