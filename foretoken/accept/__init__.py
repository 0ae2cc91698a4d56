"""Acceptance rules: plain rejection, block verification, and the greedy match."""
