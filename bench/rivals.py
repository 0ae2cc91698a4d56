"""foretoken beside others on the same prompts, in turn, so that drift of the machine falls on all of them alike.

    python bench/rivals.py TARGET DRAFT PROMPTS.jsonl [--genai PYTHON TARGET_IR DRAFT_IR] [--limit 20] [--out FILE]

Every tool has a process of its own, which waits while another one works. `transformers` runs in the environment of
this script; OpenVINO GenAI has requirements of its own, so its Python and its exported models are given. All read the
same token ids and decode greedily in one type, bfloat16 where the hardware multiplies it, and are timed from prompt to
last token. A rate is tokens over seconds of all prompts; a ratio is the median over prompts, with the middle half, of
rates on the same prompt.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[[list[int], int], int]  # token ids of a prompt, new tokens at most -> new tokens
FIXED = range(2, 6)
LOOKUP, NGRAM = (3, 5), 3  # tokens looked up in the text, and of context at most
PRECISIONS = {"bfloat16": "bf16", "float32": "f32"}  # as OpenVINO calls them


def foretoken(target: str, draft: str, device: str, dtype: str) -> dict[str, Run]:
    """Plain decoding, the default, and with the draft model alone: `renewal` and every fixed length."""
    import foretoken

    sampling = foretoken.Sampling(temperature=0.0)
    llm = foretoken.load(target, f"suffix+{draft}", dtype=dtype, device=device)
    variants = {"plain": llm.using(draft="none"), "default": llm.using(), "renewal": llm.alone()}
    variants |= {f"fixed:{k}": llm.alone().using(length=f"fixed:{k}") for k in FIXED}

    def runner(variant: Any) -> Run:
        def run(ids: list[int], most: int) -> int:
            request = foretoken.Request(ids, sampling, most, stop_token_ids=llm.target.stop_token_ids, repeats=False)
            going = variant.run([request])
            for _ in going:
                pass
            return len(going.completions()[0].token_ids)

        return run

    return {name: runner(variant) for name, variant in variants.items()}


def transformers(target: str, draft: str, device: str, dtype: str) -> dict[str, Run]:
    """Plain decoding, assisted decoding as it comes, and its look-up of the prompt."""
    import torch
    from transformers import AutoModelForCausalLM

    big, small = (
        AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).to(device).eval()
        for path in (target, draft)
    )

    def runner(**options: Any) -> Run:
        def run(ids: list[int], most: int) -> int:
            prompt = torch.tensor([ids], device=device)
            with torch.inference_mode():
                mask = torch.ones_like(prompt)
                out = big.generate(prompt, attention_mask=mask, max_new_tokens=most, do_sample=False, **options)
            return int(out.shape[1]) - len(ids)

        return run

    runs = {"plain": runner(), "assisted": runner(assistant_model=small)}
    return runs | {f"lookup:{k}": runner(prompt_lookup_num_tokens=k) for k in LOOKUP}


def genai(target: str, draft: str, device: str, dtype: str) -> dict[str, Run]:
    """Plain decoding, every fixed length, the confidence threshold of its documentation, and its look-up."""
    import numpy as np
    import openvino as ov
    import openvino_genai as og

    settings = {"INFERENCE_PRECISION_HINT": PRECISIONS[dtype], "INFERENCE_NUM_THREADS": str(os.cpu_count())}
    scheduler = og.SchedulerConfig()
    scheduler.cache_size = 1
    alone = og.LLMPipeline(target, "CPU", scheduler_config=scheduler, **settings)
    small = og.draft_model(draft, "CPU", **settings)
    both = og.LLMPipeline(target, "CPU", scheduler_config=scheduler, draft_model=small, **settings)
    text = og.LLMPipeline(target, "CPU", scheduler_config=scheduler, prompt_lookup=True, **settings)

    def runner(pipeline: Any, **options: Any) -> Run:
        def run(ids: list[int], most: int) -> int:
            config = og.GenerationConfig()
            chosen = {"max_new_tokens": most, "do_sample": False, "apply_chat_template": False, **options}
            for name, value in chosen.items():
                setattr(config, name, value)
            return len(pipeline.generate(ov.Tensor(np.array([ids])), config).tokens[0])

        return run

    runs = {"plain": runner(alone), "threshold:0.4": runner(both, assistant_confidence_threshold=0.4)}
    runs |= {f"fixed:{k}": runner(both, num_assistant_tokens=k) for k in FIXED}
    return runs | {f"lookup:{k}": runner(text, num_assistant_tokens=k, max_ngram_size=NGRAM) for k in LOOKUP}


TOOLS = {"foretoken": foretoken, "transformers": transformers, "genai": genai}


def work(tool: str, target: str, draft: str, device: str, dtype: str) -> None:
    """Answer requests on standard input, one JSON object per line, until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    runs = TOOLS[tool](target, draft, device, dtype)
    print(json.dumps(list(runs)), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        begin = time.perf_counter()
        count = runs[asked["method"]](asked["ids"], asked["most"])
        print(json.dumps({"tokens": count, "seconds": time.perf_counter() - begin}), file=answers, flush=True)


class Worker:
    """One tool in a process of its own.

    Args:
        tool: a name of `TOOLS`.
        python: interpreter of its environment.
        models: target and draft, as the tool reads them.
        how: device and dtype.
        log: file for what it prints.
    """

    def __init__(self, tool: str, python: str, models: list[str], how: tuple[str, str], log: Any) -> None:
        command = [python, __file__, *models, "-", "--device", how[0], "--dtype", how[1], "--worker", tool]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1
        )
        self.methods = self._answer(tool)
        self._tool = tool

    def run(self, method: str, ids: list[int], most: int) -> dict[str, float]:
        """Tokens and seconds of one prompt."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"method": method, "ids": ids, "most": most}) + "\n")
        found: dict[str, float] = self._answer(self._tool)
        return found

    def _answer(self, tool: str) -> Any:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"{tool} ended; see the log beside the result")
        return json.loads(line)


def prompts(path: str, target: str, limit: int) -> list[list[int]]:
    """Token ids of the first prompts, by the chat template, the last 512 at most."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(target)
    found = []
    for line in Path(path).read_text(encoding="utf-8").splitlines()[:limit]:
        row = json.loads(line)
        talk = [{"role": "user", "content": row.get("prompt") or row["turns"][0]}]
        found.append(
            tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=True)["input_ids"][-512:]
        )
    return found


def compare(asked: list[list[int]], workers: dict[str, Worker], most: int) -> dict[str, list[dict[str, float]]]:
    """Every method of every tool on every prompt, starting with another one each time; the first round warms up."""
    names = [(tool, method) for tool, worker in workers.items() for method in worker.methods]
    found: dict[str, list[dict[str, float]]] = {f"{tool} {method}": [] for tool, method in names}
    for index, ids in enumerate([asked[0], *asked]):
        for offset in range(len(names)):
            tool, method = names[(index + offset) % len(names)]
            one = workers[tool].run(method, ids, most)
            if index:
                found[f"{tool} {method}"].append(one)
        print(f"\r{index}/{len(asked)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Rates, and the ratios that decide: plain to plain, and the default to what others reach in hindsight."""
    rates = {name: sum(o["tokens"] for o in runs) / sum(o["seconds"] for o in runs) for name, runs in found.items()}

    def best(tool: str) -> str:
        drafting = [name for name in rates if name.startswith(tool) and not name.endswith(" plain")]
        return max(drafting, key=rates.__getitem__, default="")

    ours = ("foretoken default", "foretoken renewal")
    pairs = [(one, "foretoken plain") for one in ours]
    for tool in {name.split()[0] for name in rates} - {"foretoken"}:
        fastest = dict.fromkeys((best(tool), best(f"{tool} fixed"), f"{tool} assisted"))
        pairs += [
            ("foretoken plain", f"{tool} plain"),
            *((one, other) for one in ours for other in fastest if other in rates),
        ]
    ratios = []
    for one, other in sorted(pairs):
        each = [
            (a["tokens"] / a["seconds"]) / (b["tokens"] / b["seconds"])
            for a, b in zip(found[one], found[other], strict=True)
        ]
        low, middle, high = statistics.quantiles(each, n=4) if len(each) > 1 else each * 3
        ratios.append(
            {"of": one, "to": other, "total": rates[one] / rates[other]} | {"median": middle, "low": low, "high": high}
        )
    return {"tokens_per_s": rates, "ratios": ratios}


def native(device: str) -> str:
    """What foretoken computes in on that device when nobody says."""
    import torch

    from foretoken.models.source import pick_dtype

    return str(pick_dtype("auto", torch.device(device))).removeprefix("torch.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("draft")
    parser.add_argument("prompts")
    parser.add_argument("--genai", nargs=3, metavar=("PYTHON", "TARGET_IR", "DRAFT_IR"))
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["auto", *PRECISIONS], default="auto")
    parser.add_argument("--out", default="rivals.json")
    parser.add_argument("--worker", choices=list(TOOLS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    models = [args.target, args.draft]
    if args.worker:
        work(args.worker, *models, args.device, args.dtype)
        return
    how = args.device, args.dtype if args.dtype != "auto" else native(args.device)
    with open(f"{args.out}.log", "w", encoding="utf-8") as log:
        workers = {name: Worker(name, sys.executable, models, how, log) for name in ("foretoken", "transformers")}
        if args.genai:
            workers["genai"] = Worker("genai", args.genai[0], args.genai[1:], how, log)
        found = compare(prompts(args.prompts, args.target, args.limit), workers, args.max_new_tokens)
    result = {"prompts": args.prompts, "limit": args.limit, "dtype": how[1], **summary(found), "samples": found}
    Path(args.out).write_text(json.dumps(result, indent=1), encoding="utf-8")
    for name, rate in result["tokens_per_s"].items():
        print(f"{name:30} {rate:8.1f} tokens/s")
    for r in result["ratios"]:
        print(f"{r['of']} / {r['to']}: {r['total']:.2f} (median {r['median']:.2f}, {r['low']:.2f} to {r['high']:.2f})")


if __name__ == "__main__":
    main()
