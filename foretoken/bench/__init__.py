"""Compare methods on the same prompts, in one run."""
