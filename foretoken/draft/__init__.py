"""Drafters: where candidate tokens come from."""
