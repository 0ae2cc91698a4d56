"""The bugs: each replaces one piece of text, which must occur exactly once, in one file of the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """A bug to plant.

    Attributes:
        name: what is wrong, in a few words.
        file: where, below `foretoken/`.
        old: the text as it is.
        new: what stands there instead.
        tests: what must notice, in the order it is run.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, package: Path) -> str:
        """The file's text with the bug in it.

        Raises:
            LookupError: the text to replace is not there exactly once; the package moved on, and this list must too.
        """
        text = (package / self.file).read_text()
        if (found := text.count(self.old)) != 1:
            raise LookupError(f"{self.name!r}: found {found} times in {self.file}, not once:\n{self.old}")
        return text.replace(self.old, self.new)


RULES = ("tests/contract/test_exact_rules.py::test_chains",)
ENGINE = ("tests/contract/test_exact_engine.py::test_hard_worlds",)
SAMPLING = ("tests/contract/test_exact_sampling.py::test_every_sampling_parameter_is_honoured",)
CACHE = ("tests/contract/test_cache.py",)
DRAFT_CACHE = ("tests/contract/test_cache.py::test_the_drafts_cache_holds_what_it_has_read",)
FIXTURES = ("tests/accept/test_fixtures.py::test_one_draw_is_accepted_as_often_as_the_laws_overlap",)
EDGES = ("tests/contract/test_edges.py",)
RNG = ("tests/contract/test_rng.py",)
CHAINS = (
    "tests/contract/test_chain.py::test_the_law_is_the_targets[ModelDrafter-Fixed-Chain-Rejection]",
    "tests/contract/test_chain.py::test_what_is_drawn_already_decides_nothing",
)
RELAYED = (
    "tests/contract/test_exact_engine.py::test_every_combination_of_methods_is_exact[Relayed-Confidence-Chain-Block]",
)
SEEDS = ("tests/contract/test_seeds.py",)
RACE = ("tests/contract/test_race.py",)
FORETOLD = ("tests/contract/test_coupled.py::test_a_draft_like_the_target_foretells_all_it_says",)

MUTANTS = [
    Mutant(
        "the draft is processed, but its raw q is handed on",
        "draft/base.py",
        "else [drawn.q]",
        "else [drawn.logits.softmax(-1)]",
        SAMPLING,
    ),
    Mutant(
        "a token of probability 0 is accepted at u = 0",
        "rng.py",
        "self._stream(row).next() < prob",
        "self._stream(row).next() <= prob",
        RNG,
    ),
    Mutant(
        "4-bit codes are counted from zero, not from the middle",
        "models/torch_weights.py",
        'middles = (8 - packed.zeros.astype("float32")) * packed.scales',
        'middles = -packed.zeros.astype("float32") * packed.scales',
        ("tests/models/test_torch_weights.py::test_four_bits_are_those_of_openvino",),
    ),
    Mutant(
        "plain steps between look-ups are taken for free",
        "length/renewal.py",
        "pace.waits(self._prices(row, batch, 1))",
        "pass",
        ("tests/length/test_choose.py",),
    ),
    Mutant(
        "weak look-ups are refused where they would pay",
        "length/pace.py",
        "if usual * sum(accumulate(probs, mul)) <",
        "if usual * probs[0] <",
        ("tests/length/test_choose.py",),
    ),
    Mutant(
        "what is drawn along a chain is held against the node before",
        "accept/points.py",
        "rng.along(p, draft.tokens",
        "rng.along(p.roll(1, 1), draft.tokens",
        RELAYED,
    ),
    Mutant(
        "every node of a chain is drawn with the same number",
        "rng.py",
        "[[[self._stream(b).next()] for _ in range(count)] for b, count in enumerate(sizes)]",
        "[[[self._stream(b).next()]] * count for b, count in enumerate(sizes)]",
        RNG,
    ),
    Mutant(
        "a row is judged like the others in its batch",
        "accept/points.py",
        "list(draft.points or points)",
        "points",
        RELAYED,
    ),
    Mutant(
        "rows that are matched spend random numbers on the rule as well",
        "accept/points.py",
        "rule.settle(draft, p, Only(rng, [not one for one in points]))",
        "rule.settle(draft, p, rng)",
        RELAYED,
    ),
    Mutant(
        "a token drawn ahead takes the number of a coin",
        "accept/rejection.py",
        "torch.arange(1, p.shape[1] + 1, device=draft.drafted.device).minimum",
        "torch.arange(p.shape[1], device=draft.drafted.device).minimum",
        ("tests/accept/test_at_once.py",),
    ),
    Mutant(
        "the number of a refused candidate is used again",
        "accept/at_once.py",
        "rng.spend([int(tossed[end]) + 1 for end in ends])",
        "rng.spend([int(tossed[end]) for end in ends])",
        ("tests/accept/test_at_once.py",),
    ),
    Mutant("the ratio is inverted", "accept/base.py", "one / other if other", "other / one if one", RULES),
    Mutant("q is taken as 1", "accept/base.py", "one / other if other", "one if other", FIXTURES),
    Mutant(
        "the residual is taken one position late",
        "accept/rejection.py",
        "residual(law, chain_law_at(draft, p, counts))",
        "residual(after(p.roll(-1, 1), counts), chain_law_at(draft, p, counts))",
        RULES,
    ),
    Mutant(
        "the draft takes the likeliest token, but declares it drawn",
        "draft/base.py",
        "token = to_device(single(dice.guess(law, grow, depth) if batch.coupled else dice.pick(law, grow)), q.device)",
        "token = q.argmax(-1) * to_device([[int(one)] for one in grow], q.device)",
        ENGINE,
    ),
    Mutant(
        "the draft drops a weak token after drawing it",
        "draft/base.py",
        "        if not depth:\n",
        "        for b, path in enumerate(paths):\n"
        "            if path and probs[b][len(path)] < 0.4:\n"
        "                path.pop()\n"
        "        if not any(paths):\n",
        ENGINE,
    ),
    Mutant(
        "a policy sees the token it decides about, since that is drawn already",
        "draft/base.py",
        "[[of[-1]] for of in probs]",
        "[[row[min(end, ready - first - 1)]] for _, row in near]",
        CHAINS,
    ),
    Mutant(
        "random numbers that were used are used again",
        "draft/base.py",
        "batch.draft_rng.spend(list(map(len, taken)))",
        "batch.draft_rng.spend([0] * len(taken))",
        CHAINS,
    ),
    Mutant(
        "the law of tokens drawn in one go leaves out what rounding lost",
        "models/openvino_chain.py",
        "    ends[..., -1] = 1\n",
        "",
        ("tests/models/test_openvino.py::test_boundaries_make_a_law_whatever_they_add_up_to",),
    ),
    Mutant(
        "two tokens of a chain are read where one would be",
        "models/paged.py",
        "past = [place + 1 - width for place in places]",
        "past = list(places)",
        ("tests/models/test_openvino.py::test_what_is_drawn_in_one_go_is_what_forwards_say",),
    ),
    Mutant(
        "sines are looked up one position late",
        "models/openvino_lean.py",
        "np.arange(max_length, dtype=np.int32)[:, None]",
        "np.arange(1, max_length + 1, dtype=np.int32)[:, None]",
        ("tests/models/test_openvino_lean.py::test_waves_are_looked_up",),
    ),
    Mutant(
        "a machine that slows down makes the width in use dear",
        "curves.py",
        "if not extra and self._sizes.count(size) < len(self._sizes):",
        "if not extra and self._sizes:",
        ("tests/test_costs.py::test_a_machine_that_slows_down_makes_no_width_dear",),
    ),
    Mutant(
        "the first draft of all is the price of drafting",
        "curves.py",
        "median([*more, *[0.0] * (FEW - len(more))])",
        "median(more)",
        ("tests/test_costs.py::test_a_first_draft_that_reads_a_prompt_is_no_price",),
    ),
    Mutant(
        "a stall at the first try makes the longest rest",
        "length/record.py",
        "min(ceil(lost / REGRET), longest)",
        "ceil(lost / REGRET)",
        ("tests/length/test_renewal.py::test_rests_begin_short_again_once_drafting_paid",),
    ),
    Mutant(
        "penalties ignore the drafted path",
        "sampling.py",
        "drafted = torch.tensor(path, dtype=torch.int64, device=logits.device)",
        "drafted = torch.tensor(path[:0], dtype=torch.int64, device=logits.device)",
        SAMPLING,
    ),
    Mutant(
        "all rows share the first row's random numbers",
        "rng.py",
        "memory = self._rows[row].memory",
        "memory = self._rows[0].memory",
        SEEDS,
    ),
    Mutant(
        "drafting and acceptance have the same random numbers",
        "rng.py",
        "return [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, *purpose.encode()]",
        "return [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]",
        RNG,
    ),
    Mutant(
        "after a rejection the target is drawn from, not what is left of it",
        "accept/rejection.py",
        "residual(law, chain_law_at(draft, p, counts))",
        "law",
        RULES,
    ),
    Mutant(
        "a point mass is taken for half a chance",
        "accept/base.py",
        "return [row[: size - 1] for",
        "return [[2 * one for one in row[: size - 1]] for",
        RULES,
    ),
    Mutant(
        "block: the joint ratio is not carried along",
        "accept/block.py",
        "min(w * ratio, 1.0)",
        "min(ratio, 1.0)",
        RULES,
    ),
    Mutant(
        "block: the residual forgets the joint ratio",
        "accept/block.py",
        "(weight[..., None] * p).sub_(q)",
        "(p - q)",
        RULES,
    ),
    Mutant(
        "block: the shortest prefix that passes is kept, not the longest",
        "accept/block.py",
        "range(whole, 0, -1)",
        "range(1, whole + 1)",
        RULES,
    ),
    Mutant(
        "block: where a GPU is waited for once, a joint ratio above 1 is carried along",
        "accept/block.py",
        "ratio.cummax(-1).values.clamp_min(0)",
        "ratio.clamp_min(0)",
        ("tests/accept/test_at_once.py",),
    ),
    Mutant(
        "block: where a GPU is waited for once, the next token takes the number of the last coin",
        "accept/block.py",
        "(draft.drafted + 1 - torch.arange",
        "(draft.drafted - torch.arange",
        ("tests/accept/test_at_once.py",),
    ),
    Mutant(
        "greedy: every child is held against the root's best token",
        "accept/greedy.py",
        "tokens[child] == best[node]",
        "tokens[child] == best[0]",
        ("tests/accept/test_verdicts.py",),
    ),
    Mutant(
        "the draft's likelier tokens are drawn more often than q says",
        "draft/base.py",
        "else dice.pick(law, grow)",
        "else dice.pick(law.square() / law.square().sum(-1, True), grow)",
        ENGINE,
    ),
    Mutant(
        "processors do not see the drafted path",
        "sampling.py",
        "history = torch.tensor([row.tokens + path], device=logits.device)",
        "history = torch.tensor([row.tokens], device=logits.device)",
        SAMPLING,
    ),
    Mutant(
        "presence and frequency count the prompt as well",
        "sampling.py",
        "emitted = ids[max(len(row.request.prompt) - self._read, 0) :]",
        "emitted = ids",
        SAMPLING,
    ),
    Mutant(
        "min-p is applied before the temperature",
        "sampling.py",
        "logits < math.log(min_p)",
        "logits * temperature < math.log(min_p)",
        SAMPLING,
    ),
    Mutant(
        "top-p leaves out the token that reaches it",
        "sampling.py",
        "kept = (ahead < top_p)",
        "kept = (ahead + head <= top_p)",
        SAMPLING,
    ),
    Mutant(
        "the target's cache lacks the last accepted token",
        "commit.py",
        "[[0, *path] for path in",
        "[[0, *path[:-1]] for path in",
        CACHE,
    ),
    Mutant(
        "the cache keeps the first nodes, not the accepted ones",
        "commit.py",
        "batch.cache.commit([[0, *path] for",
        "batch.cache.commit([range(len(path) + 1) for",
        CACHE,
    ),
    Mutant(
        "the draft's cache keeps a token it never read",
        "draft/model.py",
        "range(min(count, max(size - 2, 0)) + self._rooted)",
        "range(count + self._rooted)",
        CACHE,
    ),
    Mutant(
        "the draft reads again what it has read",
        "draft/model.py",
        "range(min(count, max(size - 2, 0)) + self._rooted)",
        "range(self._rooted)",
        CACHE,
    ),
    Mutant(
        "rows close up in another order than their caches",
        "engine.py",
        "            rows[to] = rows[source]\n        del rows[len(rows) - len(gone) :]\n",
        "            pass\n        rows[:] = [row for b, row in enumerate(rows) if b not in gone]\n",
        CACHE,
    ),
    Mutant(
        "rows leave the target's cache, but not the draft's",
        "engine.py",
        "        self.drafter.release(gone)\n",
        "",
        DRAFT_CACHE,
    ),
    Mutant(
        "a node of a tree sees its cousins",
        "verify.py",
        "mask = mask | mask.gather(1, above[:, :, None].expand(-1, -1, nodes))",
        "mask = mask | torch.ones_like(mask).tril()",
        CACHE,
    ),
    Mutant(
        "positions in a tree follow the node's number, not its depth",
        "verify.py",
        "mask.sum(-1) - 1",
        "torch.arange(mask.shape[1])",
        CACHE,
    ),
    Mutant(
        "tokens that follow each other begin after the committed ones, whatever is pending",
        "models/base.py",
        "torch.arange(past, past + count)",
        "torch.arange(count)",
        ("tests/models/test_families.py::test_tree_commit_and_rollback",),
    ),
    Mutant(
        "tokens that OpenVINO reads in a row all stand in one place",
        "models/openvino_run.py",
        "np.add(self._following, begin, row)",
        "row[:] = begin",
        ("tests/models/test_backends.py::test_hidden_states_are_what_the_output_embedding_reads",),
    ),
    Mutant(
        "padding beyond the context is read there",
        "models/openvino.py",
        "if reading.longest > self.max_length:",
        "if False:",
        ("tests/models/test_openvino.py::test_padding_stands_within_the_context",),
    ),
    Mutant(
        "a stop token inside a draft is followed by the rest of it",
        "commit.py",
        "token in row.request.stop_token_ids:",
        "(token in row.request.stop_token_ids and taken == len(tokens)):",
        EDGES,
    ),
    Mutant(
        "drafting goes on after a stop token",
        "draft/base.py",
        " and new[-1] not in ends",
        "",
        EDGES,
    ),
    Mutant(
        "a draft leaves no room for the token after it",
        "types.py",
        "return self.capacity - len(self.tokens) - 1",
        "return self.capacity - len(self.tokens)",
        EDGES,
    ),
    Mutant(
        "a token cut off after a stop is not counted as cut",
        "commit.py",
        "row.counts.num_cut += kept <= len(path)",
        "row.counts.num_cut += kept < len(path)",
        EDGES,
    ),
    Mutant(
        "log-probabilities come from the node of the token, not of its parent",
        "commit.py",
        "[0, *path][:kept]",
        "[*path, path[-1] if path else 0][:kept]",
        ("tests/contract/test_logprobs.py",),
    ),
    Mutant(
        "confidence learns from tokens after the first rejection",
        "length/confidence.py",
        "judged = min(accepted + 1, sizes[b] - 1)",
        "judged = sizes[b] - 1",
        ("tests/length/test_confidence.py",),
    ),
    Mutant(
        "confidence: of equal costs the lowest threshold wins",
        "length/confidence.py",
        "if cost < best:",
        "if cost <= best:",
        ("tests/length/test_confidence.py",),
    ),
    Mutant(
        "all rows share one candidate length",
        "length/heuristic.py",
        "return [row.memory.get(self, self.config.start) for row in batch.rows]",
        "return [batch.rows[0].memory.get(self, self.config.start) for row in batch.rows]",
        ("tests/length/test_heuristic.py",),
    ),
    Mutant(
        "verifying more tokens costs nothing more",
        "prices.py",
        "self.costs.verify_s(read) if read",
        "self.costs.verify_s(self.rows) if read",
        ("tests/length/test_renewal.py", "tests/test_costs.py"),
    ),
    Mutant(
        "costs do not say that their answers have changed",
        "costs.py",
        "        self.changes += fresh\n",
        "",
        ("tests/test_costs.py",),
    ),
    Mutant(
        "renewal remembers for ever what a step costs",
        "length/outlook.py",
        "self._asked, self._steps = asked, {}",
        "self._asked = asked",
        ("tests/length/test_renewal.py",),
    ),
    Mutant(
        "what was drawn after a stop token is drafted",
        "draft/base.py",
        "up_to(ends, row_tokens[begin : min(end, deepest - first)])",
        "row_tokens[begin : min(end, deepest - first)]",
        ("tests/contract/test_chain.py::test_what_was_drawn_after_a_stop_token_is_no_candidate",),
    ),
    Mutant(
        "steps that clearly pay are counted more than once",
        "length/pace.py",
        "            self._uncounted.clear()\n",
        "",
        ("tests/length/test_renewal.py",),
    ),
    Mutant(
        "costs learn from a step more than once",
        "costs.py",
        "        self._unread.clear()\n",
        "",
        ("tests/test_costs.py",),
    ),
    Mutant(
        "a head is asked however long that takes",
        "length/hearing.py",
        "if stake_s is not None and",
        "if False and",
        ("tests/length/test_renewal.py",),
    ),
    Mutant(
        "what renewal hopes for at first it hopes for ever",
        "length/pace.py",
        "            self.outlook.forget()\n",
        "",
        ("tests/length/test_renewal.py",),
    ),
    Mutant(
        "renewal learns from a step more than once",
        "length/pace.py",
        "            self._unread.clear()\n",
        "",
        ("tests/length/test_renewal.py",),
    ),
    Mutant(
        "what a step costs is remembered whatever the last one read",
        "costs.py",
        "self._last, self.after = width, width if self._switch else None",
        "self._last, self.after = width, None",
        ("tests/test_costs.py",),
    ),
    Mutant(
        "a request that must repeat asks the clock",
        "prices.py",
        "    if row.request.repeats:\n",
        "    if False:\n",
        ("tests/test_costs.py",),
    ),
    Mutant(
        "a request that must repeat is told nothing of its models",
        "prices.py",
        "Prices(batch.costs.typical) if batch.costs.typical else TYPICAL",
        "TYPICAL",
        ("tests/test_costs.py",),
    ),
    Mutant(
        "renewal forgets the candidates before the newest one",
        "length/pace.py",
        "worth = self._survival * self.outlook.worth(depth, price)",
        "worth = self.outlook.worth(depth, price)",
        ("tests/length/test_renewal.py",),
    ),
    Mutant(
        "what a policy asked of several tokens is told of the first one",
        "types.py",
        "else self.drawn.seen)",
        "else self.drawn.seen if self.drawn.seen is None else self.drawn.seen[:, :1].expand_as(self.drawn.seen))",
        ("tests/contract/test_far.py::test_texts_stay_the_same",),
    ),
    Mutant(
        "what a captured draft is looked at for is found before the tokens are drawn",
        "models/static_chain.py",
        "seen = look(drawn) if look else None",
        "seen = look(Continuation(drawn.tokens, drawn.prob, drawn.logits * 0, drawn.hidden, None)) if look else None",
        ("tests/models/test_chain.py::test_what_a_caller_looks_at_comes_along",),
    ),
    Mutant(
        "rows of a batch write one place too early into the storage they share",
        "models/static_inputs.py",
        "slots += torch.arange(len(near))[:, None] * (capacity + 1)",
        "slots += torch.arange(len(near))[:, None] * capacity",
        ("tests/models/test_backends.py",),
    ),
    Mutant(
        "a step in which a graph was captured counts like any other",
        "length/record.py",
        "return should if took > STILL * should else min(max(took, should / 2), 2 * should)",
        "return min(max(took, should / 2), 2 * should)",
        ("tests/length/test_renewal.py",),
    ),
    Mutant(
        "a norm becomes one kernel whatever it says then",
        "models/norms.py",
        "if same(fused(given), part(given).float()):",
        "if fused(given).shape == part(given).shape:",
        ("tests/models/test_norms.py",),
    ),
    Mutant(
        "a kernel is trusted unproven",
        "models/torch_weights.py",
        "return multiply if same(multiply(given, codes, scales), expected) else None",
        "return multiply if multiply(given, codes, scales).shape == expected.shape else None",
        ("tests/models/test_torch_weights.py::test_a_kernel_is_used_where_it_is_proven",),
    ),
    Mutant(
        "as many are drawn together as if nothing had been drawn yet",
        "length/outlook.py",
        "survival * gain - cost for gain, cost in",
        "gain - cost for gain, cost in",
        ("tests/length/test_renewal.py",),
    ),
    Mutant(
        "SpecDec++ gives the head the newest token's probability",
        "length/specdecpp.py",
        "self._head.judge(read, parents, ",
        "self._head.judge(read, [prob for _, prob in newest], ",
        ("tests/length/test_specdecpp.py",),
    ),
    Mutant(
        "a trace accepts with min(p, q) / q",
        "bench/trace.py",
        "torch.minimum(p_text, q_text) / p_text.clamp_min(1e-30)",
        "torch.minimum(p_text, q_text) / q_text.clamp_min(1e-30)",
        ("tests/bench/test_replay.py",),
    ),
    Mutant(
        "a block forgets what comes after a place",
        "models/rescoring.py",
        "self._weights[place - 1] = self._weights[place - 1] + ahead[:, None]",
        "self._weights[place - 1] = self._weights[place - 1]",
        ("tests/models/test_rescoring.py",),
    ),
    Mutant(
        "a block begins at the first accepted node's state",
        "draft/blockwise.py",
        "node = path[-1] if path else 0",
        "node = path[0] if path else 0",
        ("tests/draft/test_blockwise.py",),
    ),
    Mutant(
        "the oldest unread pairs speak, not the newest",
        "draft/falcon.py",
        "newest = (self.sizes - net.shape.block).clamp_min(0)[:, None]",
        "newest = torch.zeros_like(self.sizes)[:, None]",
        ("tests/draft/test_falcon.py",),
    ),
    Mutant(
        "a state is paired with the token it was read at",
        "draft/falcon.py",
        "torch.tensor(row.tokens[len(row.tokens) - len(one) :])",
        "torch.tensor(row.tokens[len(row.tokens) - len(one) - 1 : -1])",
        ("tests/draft/test_falcon.py",),
    ),
    Mutant(
        "pairs of later blocks are seen in training",
        "train/glancing.py",
        "self._seen = torch.arange(pairs) < (first + self._size)[..., None]",
        "self._seen = torch.arange(pairs) < (first + self._size + 1)[..., None]",
        ("tests/train/test_falcon.py",),
    ),
    Mutant(
        "the look-ahead tokens behind the root are always taken",
        "draft/lookahead.py",
        "begin = draft.tokens.shape[1] + last * self._ahead",
        "begin = draft.tokens.shape[1]",
        ("tests/draft/test_lookahead.py",),
    ),
    Mutant(
        "where a device stopped, the token after the last one is drawn from what a law left that drew nothing",
        "draft/ahead.py",
        "(_left(depths, law) < 1)",
        "(_left(depths, law) < 0)",
        ("tests/contract/test_stop.py::test_the_law_is_the_targets",),
    ),
    Mutant(
        "random numbers of tokens that a device did not draw are spent",
        "draft/model.py",
        "batch.draft_rng.spend([size - 1 for size in draft.sizes])",
        "batch.draft_rng.spend(list(draft.sizes))",
        ("tests/contract/test_stop.py::test_it_stops_where_the_policy_would",),
    ),
    Mutant(
        "a device goes on by the token that it has not drawn yet",
        "models/static_chain.py",
        "wants(self._drawn(k + 1), ",
        "wants(self._drawn(k + 2), ",
        ("tests/models/test_chain.py::test_a_rule_is_told_all_that_was_drawn_so_far",),
    ),
    Mutant(
        "drafter and target race by numbers of their own",
        "rng.py",
        'Race(words(row.request.seed, "race"))',
        "Race(words(row.request.seed, self._purpose))",
        FORETOLD,
    ),
    Mutant(
        "a drafter asks for the numbers of the place before",
        "draft/base.py",
        "q[:, 0], len(tokens) - 1",
        "q[:, 0], max(len(tokens) - 2, 0)",
        FORETOLD,
    ),
    Mutant(
        "a model that draws ahead is given the numbers of the first place",
        "draft/model.py",
        "self._model.vocab_size, count, len(tokens) - 1)",
        "self._model.vocab_size, count, 0)",
        FORETOLD,
    ),
    Mutant(
        "numbers of a race are used again in the next step",
        "race.py",
        "        del self._numbers[: done - self._first]\n",
        "",
        RACE,
    ),
    Mutant(
        "a race is run with numbers of 32 bits",
        "race.py",
        "self._generator.standard_exponential(vocab_size)",
        "self._generator.standard_exponential(vocab_size, np.float32)",
        RACE,
    ),
    Mutant(
        "a race is won by the least number, however unlikely the token",
        "race.py",
        "(laws / numbers.to(",
        "((laws > 0) / numbers.to(",
        RACE,
    ),
    Mutant(
        "what was foretold comes",
        "accept/coupled.py",
        "self.match(near, said.tolist(), most.tolist())",
        "self.match(near, [[*row[1:], 0] for row in near.tokens.tolist()], most.tolist())",
        ("tests/contract/test_exact_engine.py::test_hard_worlds",),
    ),
    Mutant(
        "a device draws on for rows that have no room",
        "models/static_chain.py",
        "self.wanted < self.plan[:, ROOM]",
        "self.wanted < self.plan[:, ROOM].max()",
        ("tests/models/test_chain.py::test_it_stops_where_a_rule_says_so",),
    ),
    Mutant(
        "a text with a seed depends on what a device may draw for its neighbours",
        "draft/ahead.py",
        "    if repeats or (points",
        "    if (points",
        (
            "tests/contract/test_stop.py::test_not_for_those_who_must_not_depend_on_their_neighbours_or_on_what_was_drafted",
        ),
    ),
    Mutant(
        "SpecDec++ on a device reads a token's state one place early",
        "length/specdecpp.py",
        "self._head.describe(drawn.hidden[:, 1:], drawn.prob[:, :-1],",
        "self._head.describe(drawn.hidden[:, :-1], drawn.prob[:, :-1],",
        ("tests/contract/test_stop.py::test_it_stops_where_the_policy_would",),
    ),
    Mutant(
        "what a text proposes is judged by the law of a model that drew nothing",
        "draft/relay.py",
        "q = torch.where(mine[..., None], point, q)",
        "q = torch.where(mine[..., None], torch.full_like(q, 1 / q.shape[-1]), q)",
        ("tests/draft/test_relay.py",),
    ),
    Mutant(
        "a row that rests takes a look-up only where it promises more than a draft",
        "draft/relay.py",
        "length.resting(row) or ",
        "",
        ("tests/draft/test_relay.py",),
    ),
    Mutant(
        "a rest never ends among rows that draft",
        "length/balance.py",
        "            self.rest -= 1\n",
        "",
        ("tests/length/test_renewal.py::test_a_batch_of_resting_rows_is_not_drafted_for",),
    ),
    Mutant(
        "a bandit plays its lengths on look-ups",
        "length/bandit.py",
        "return probable(known)",
        "return super().choose(batch, known)",
        ("tests/contract/test_seeds.py::test_the_same_seed_gives_the_same_text_alone_and_in_any_batch",),
    ),
    Mutant(
        "look-ups go on behind the end of a text",
        "draft/suffix.py",
        "            if token in ends:\n                break\n",
        "",
        ("tests/draft/test_suffix.py",),
    ),
    Mutant(
        "a prompt tells how often the model repeats itself",
        "draft/suffix.py",
        "token, judged = tokens[end], end < self._prompt",
        "token, judged = tokens[end], False",
        ("tests/draft/test_suffix.py",),
    ),
    Mutant(
        "a plain step after a wide one is what plain decoding takes",
        "curves.py",
        "calm = alike > CALM",
        "calm = True",
        ("tests/test_costs.py::test_a_plain_step_costs_what_it_takes_where_no_other_is_near",),
    ),
    Mutant(
        "what slows steps between others down slows plain decoding down",
        "curves.py",
        "if calm or not self._switches:",
        "if True:",
        ("tests/test_costs.py::test_a_plain_step_costs_what_it_takes_where_no_other_is_near",),
    ),
    Mutant(
        "a width takes among its like what it was calibrated to",
        "curves.py",
        "if width not in self._own:",
        "if True:",
        ("tests/test_costs.py::test_what_a_width_takes_among_its_like_is_told_by_such_steps",),
    ),
    Mutant(
        "looking up rests as long as drafting by a model",
        "length/renewal.py",
        "Record(EAGER if known else PATIENCE)",
        "Record(PATIENCE)",
        ("tests/length/test_renewal.py",),
    ),
    Mutant(
        "which width is read fastest is forgotten",
        "models/openvino_width.py",
        "if name not in known:",
        "if True:",
        ("tests/models/test_openvino_width.py",),
    ),
    Mutant(
        "a width costs what it took among others",
        "curves.py",
        "if not extra and self._sizes",
        "if self._sizes",
        ("tests/test_costs.py",),
    ),
    Mutant(
        "only plain decoding is timed in a row",
        "models/timing.py",
        "more = max(min(int(SETTLES_S / first_s), IN_A_ROW), 1)",
        "more = IN_A_ROW if size == widths[0] else 1",
        ("tests/models/test_timing.py",),
    ),
    Mutant(
        "a floor is judged by its first steps",
        "length/floor.py",
        " and self._since > CALM",
        "",
        ("tests/length/test_floor.py",),
    ),
    Mutant(
        "what steps of a floor really bring is no matter",
        "length/floor.py",
        "true[width > 1] * brought.rate",
        "brought.rate",
        ("tests/length/test_floor.py",),
    ),
    Mutant(
        "a request rests where a floor would be faster",
        "length/balance.py",
        "if price.rows > 1 or not self._floor.helps():",
        "if True:",
        ("tests/length/test_floor.py",),
    ),
    Mutant(
        "rows of a batch have floors",
        "length/renewal.py",
        "if self._apart or len(batch.rows) > 1:",
        "if self._apart:",
        ("tests/length/test_floor.py",),
    ),
    Mutant(
        "a floor reads more than a step may hold",
        "draft/known.py",
        "min(length.least(batch), max_nodes)",
        "length.least(batch)",
        ("tests/length/test_floor.py",),
    ),
    Mutant(
        "candidates that renewal was not asked about count for nothing",
        "length/pace.py",
        "for one in (*sure, prob):",
        "for one in (prob,):",
        ("tests/length/test_renewal.py",),
    ),
    Mutant(
        "a net trained for another model is taken",
        "models/bound.py",
        "if made.model != model:",
        "if not made.model:",
        ("tests/models/test_bound.py",),
    ),
]
