"""Length policies: how deep a draft goes."""
