"""Plants every bug of `mutants.py` and prints who noticed. Exits with 1 when one went unnoticed."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from tests.mutation.mutants import MUTANTS
from tests.mutation.runner import ROOT, Outcome, Workshop

HEAVY = ["torch", "transformers.models.llama.modeling_llama", "transformers.models.auto.tokenization_auto"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("only", nargs="*", help="parts of names of mutants; all, if none is given")
    only = parser.parse_args().only or [""]
    wanted = [mutant for mutant in MUTANTS if any(text in mutant.name for text in only)]
    for mutant in wanted:
        mutant.apply(ROOT / "foretoken")  # fails loudly before anything is run
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    import_heavy_libraries()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="foretoken-mutation-") as folder:
        place = Workshop(Path(folder))
        sound = place.run(None, sorted({test for mutant in wanted for test in mutant.tests}))
        print(f"{'as it is':70}  {'green' if sound.green else 'NOT GREEN':8} {sound.seconds:5.1f} s", flush=True)
        if not sound.green:
            print((place.folder / "log.txt").read_text())
            return 1
        survivors = 0
        for mutant in wanted:
            outcome = place.run(mutant, mutant.tests)
            survivors += not outcome.red
            print(f"{mutant.name:70}  {verdict(outcome):8} {outcome.seconds:5.1f} s  {first(outcome)}", flush=True)
            if not outcome.red:
                print((place.folder / "log.txt").read_text())
    print(f"\n{len(wanted) - survivors} of {len(wanted)} noticed, in {time.perf_counter() - started:.0f} s")
    return 1 if survivors or not wanted else 0


def verdict(outcome: Outcome) -> str:
    return "red" if outcome.red else "SURVIVED" if outcome.green else "BROKEN"


def first(outcome: Outcome) -> str:
    """The first failing test, without its folder."""
    return outcome.test.rpartition("/")[2] if outcome.red else f"{outcome.error} {outcome.test}"


def import_heavy_libraries() -> None:
    """What every child needs and no mutant changes. The package itself must not be among it."""
    for name in HEAVY:
        import_module(name)
    assert "foretoken" not in sys.modules


if __name__ == "__main__":
    sys.exit(main())
