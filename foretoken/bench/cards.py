"""What is known about the calibration of whatever was trained for a draft, from the cards beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FIELDS = ("calibration_error_before", "calibration_error", "reliability_before", "reliability")


def calibration(folder: Path) -> dict[str, dict[str, Any]]:
    """By name of what was trained, its calibration errors and reliability bins (`predicted`, `observed`, `count`).

    Args:
        folder: the draft's, in which `NAME.card.json` lies beside what it describes.
    """
    cards = {path.name.removesuffix(".card.json"): json.loads(path.read_text()) for path in folder.glob("*.card.json")}
    return {
        name: {field: card[field] for field in FIELDS if field in card}
        for name, card in sorted(cards.items())
        if "reliability" in card
    }
