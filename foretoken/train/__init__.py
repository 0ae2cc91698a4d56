"""Recipes for what is trained: one file per trained drafter or policy."""
