"""Any `transformers` causal language model, with our cache, explicit positions and a tree mask.

The model's own code runs unchanged. Its attention is replaced through the library's attention interface, and the mask
travels as an argument of `forward` down to it, so sliding windows and grouped heads are handled here, once. A model
that does not hand such an argument down gets the mask as its `attention_mask`. Either way `adapt` proves on a few
tokens that the model follows, so one that would not is refused rather than silently wrong.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, Cache, DynamicCache, PreTrainedModel

from foretoken.errors import ModelError
from foretoken.models.base import KVCache, Places, ScoresOnly, following
from foretoken.models.cache import TensorCache
from foretoken.models.proof import TOLERANCE, distance, probe, read_with_detours
from foretoken.models.torch_weights import num_parameters
from foretoken.types import Scores

ATTENTION = "foretoken_tree"
CACHE_ARGUMENTS = ("cache", "past_key_values")  # what `transformers` calls it since 5.24, and before
Write: TypeAlias = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
STEERABLE = "models whose attention goes through the `transformers` attention interface work; Llama and Qwen3 for two"


class TreeMask:
    """Which cache slots each new token sees, as additive masks that layers share.

    Args:
        lengths: [B] int64. Committed entries per row; on the CPU, unless `own` is given.
        positions: [B, P+N] int64, where the masks are wanted. Positions of the pending entries and the new tokens.
        mask: [B, N, P+N] bool. Which of them each new token sees.
        total: T, slots in view.
        dtype: of the masks.
        own: [B, N] int64 or None. Positions of the new tokens, where the P+N are padded behind them. Then everything is
            on one device, and no value is looked at on the way.

    Attributes:
        windows: sliding windows that layers asked for.
    """

    def __init__(
        self,
        lengths: Tensor,
        positions: Tensor,
        mask: Tensor,
        total: int,
        dtype: torch.dtype,
        own: Tensor | None = None,
    ) -> None:
        self._lengths, self._positions, self._mask, self._total, self._dtype = lengths, positions, mask, total, dtype
        self._own = positions[:, mask.shape[2] - mask.shape[1] :] if own is None else own
        self._ragged = own is not None or min(lengths.tolist()) + mask.shape[2] != total
        self._built: dict[tuple[int | None, int], Tensor | None] = {}
        self.windows: set[int] = set()

    def additive(self, window: int | None = None, groups: int = 1) -> Tensor | None:
        """[B, 1, groups*N, T] float, 0 where visible and hugely negative elsewhere; None when everything is visible.

        Args:
            window: tokens a sliding-window layer sees, the token itself included; None for all.
            groups: query heads per key head, folded into the query axis.
        """
        if window is not None:
            self.windows.add(window)
            window = window if window < self._total else None
        key = (window, groups)
        if key not in self._built:
            free = window is None and not self._ragged and self._sees_all()
            self._built[key] = None if free else self.dense(window).repeat(1, 1, groups, 1)
        return self._built[key]

    def _sees_all(self) -> bool:
        """Whether the mask hides nothing. Two tokens never see each other, and one always sees itself."""
        _, new, pending = self._mask.shape
        return new == 1 and (pending == 1 or bool(self._mask.all()))

    def dense(self, window: int | None = None) -> Tensor:
        """[B, 1, N, T] float, as `additive` but never None."""
        rows, new, pending = self._mask.shape
        mask = self._mask.to(self._positions.device)
        slots = torch.arange(self._total, device=mask.device)
        first = self._total - pending  # where the longest row's pending entries start
        if self._ragged:
            behind = slots - self._lengths.to(mask.device)[:, None]  # [B, T] place among the pending entries
            place = behind.clamp(0, pending - 1)
            seen = mask.gather(2, place[:, None].expand(-1, new, -1)) & (behind < pending)[:, None]
            seen = seen | (behind < 0)[:, None]
        else:
            seen = pad(mask, (first, 0), value=True)
        if window is not None:
            if self._ragged:
                at = torch.where(behind < 0, slots, self._positions.gather(1, place))  # [B, T] position of each slot
            else:
                at = torch.cat([slots[:first].expand(rows, -1), self._positions], 1)
            seen = seen & (self._own[:, :, None] - at[:, None] < window)
        # Not -inf: a token that sees nothing at all (padding) would become not-a-number.
        added = torch.zeros(seen.shape, dtype=self._dtype, device=seen.device)
        return added.masked_fill_(~seen, torch.finfo(self._dtype).min)[:, None]


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    tree_mask: TreeMask | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of new tokens over the cache under a tree mask, in the form `transformers` calls it.

    Grouped query heads are folded into the query axis, so keys and values are never repeated.

    Args:
        query: [B, heads, N, dim] float.
        key: [B, key_heads, T, dim] float.
        value: [B, key_heads, T, dim] float.
        softcap: bound on attention scores (Gemma 2).
        s_aux: [heads] float. A score that takes part in the softmax but has no value (attention sinks, gpt-oss).

    Returns:
        [B, N, heads, dim] float, and no weights.

    Raises:
        ModelError: the model makes a mask of its own.
        LookupError: the mask was not handed down.
    """
    if attention_mask is not None:
        raise ModelError(f"{type(module).__name__} makes an attention mask of its own", hint=STEERABLE)
    if tree_mask is None:
        raise LookupError(f"{type(module).__name__} does not hand the tree mask down")
    rows, heads, new, dim = query.shape
    key_heads = key.shape[1]
    groups = heads // key_heads
    folded = query.reshape(rows, key_heads, groups * new, dim)
    mask = tree_mask.additive(sliding_window, groups)
    if softcap is None and s_aux is None:
        out = scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    else:
        weights = folded @ key.transpose(-1, -2) * (scaling if scaling is not None else dim**-0.5)
        if softcap is not None:
            weights = torch.tanh(weights / softcap) * softcap
        weights = weights.float() if mask is None else weights.float() + mask
        if s_aux is not None:
            sink = s_aux.float().reshape(1, key_heads, groups, 1).expand(rows, -1, -1, new)
            weights = torch.cat([weights, sink.reshape(rows, key_heads, groups * new, 1)], -1)
        out = weights.softmax(-1)[..., : key.shape[2]].to(value.dtype) @ value
    return out.reshape(rows, heads, new, value.shape[-1]).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, tree_attention)


class _Bridge(Cache):  # type: ignore[misc]  # the library is not typed
    """Lets a `transformers` model write into our cache, which holds so many entries of the longest row."""

    def __init__(self, write: Write, entries: int) -> None:
        super().__init__(layers=[])
        self._write, self._entries = write, entries

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        return self._write(layer_idx, key_states, value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._entries


class HFModel(ScoresOnly):
    """A `transformers` causal language model behind the `LanguageModel` interface. Made by `adapt`.

    Cost per forward: one forward of the model; the cache is appended to in place and never copied.

    Args:
        model: a causal language model. If its attention implementation is `ATTENTION` the mask goes there, else it is
            given as `attention_mask`.
        max_length: longest sequence it can read, in tokens.
        vocab_size: logits to return; a draft whose embedding is padded otherwise than the target's is cut or filled up
            with tokens of probability 0.

    Attributes:
        dtype: of the weights.
        hidden_size: H.
        own_attention: whether the model runs our attention rather than its own.
        note: what the user should know about how it was loaded, or None.

    Raises:
        ModelError: the model has no output embedding.
    """

    backend = "torch"
    note: str | None = None

    def __init__(self, model: PreTrainedModel, max_length: int, vocab_size: int | None = None) -> None:
        self.model = model.eval()
        for part in model.modules():
            if isinstance(part, PreTrainedModel):
                # It looks at the tokens to warn of padding without a mask, for which a GPU would have to be waited for.
                part.warn_if_padding_and_no_attention_mask = lambda *_: None
        self.max_length = max_length
        self.device = model.device
        self.dtype: torch.dtype = model.dtype  # looking it up walks over the parameters
        self._head = model.get_output_embeddings()
        if self._head is None:
            raise ModelError(f"{type(model).__name__} has no output embedding", hint="use a causal language model")
        text = model.config.get_text_config()
        self._num_layers = int(text.num_hidden_layers)
        self._cache_name = cache_argument(model.forward) or CACHE_ARGUMENTS[-1]  # every version takes the old name
        self.own_attention = text._attn_implementation == ATTENTION
        self.hidden_size = int(self._head.weight.shape[1])
        self.vocab_size = vocab_size or int(self._head.weight.shape[0])
        # A draft may be shown a token of the target's that its own embedding does not have.
        readable = int(model.get_input_embeddings().weight.shape[0])
        self._last_token = readable - 1 if self.vocab_size > readable else None

    @property
    def num_parameters(self) -> int:
        """Number of weights, shared ones once."""
        return num_parameters(self.model)

    def width(self, tokens: int) -> int:
        """How many tokens a forward of so many really reads: no padding here."""
        return tokens

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights, shared ones once."""
        return sum(weight.nbytes for weight in self.model.parameters())

    @property
    def output_embedding(self) -> Tensor:
        """[V, H] float. What the last hidden state is read by."""
        weight: Tensor = self._head.weight.detach()
        return weight

    def new_cache(self, rows: int) -> TensorCache:
        """An empty cache of that many rows."""
        return TensorCache(self._num_layers, rows)

    def forward(self, tokens: Tensor, cache: KVCache, places: Places | None = None, last: int = 0) -> Scores:
        """Read tokens, adding one pending entry per token (see `LanguageModel.forward`)."""
        return self._read(tokens, cache, places, last)[0]

    def _placed(self, places: Places | None, cache: KVCache, count: int) -> Places:
        """Where so many tokens stand: as is said, or behind all that is in the cache; never beyond the context."""
        positions, mask = places or following(cache.lengths, cache.pending, count)
        return Places(positions.clamp_max(self.max_length - 1), mask)

    @torch.no_grad()
    def _read(
        self, tokens: Tensor, cache: KVCache, places: Places | None = None, last: int = 0
    ) -> tuple[Scores, TreeMask]:
        """As `forward`, and what the layers asked of the mask."""
        assert isinstance(cache, TensorCache)
        positions, mask = self._placed(places, cache, tokens.shape[1])
        positions = positions.to(self.device)
        total, known = cache.begin(positions)
        tree = TreeMask(cache.lengths, known, mask, total, self.dtype)
        entries = total - tokens.shape[1]
        logits, hidden = self._run(tokens.to(self.device), positions, tree, cache.write, entries, last)
        cache.end()
        return Scores(self._fitted(logits).float(), hidden), tree

    def _run(
        self, tokens: Tensor, positions: Tensor, tree: TreeMask, write: Write, entries: int, last: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """The model's own logits and last hidden states, as many as it makes of each token.

        Args:
            tokens: as in `forward`, on the model's device, and so are the positions.
            positions: as in `forward`.
            tree: what each token sees.
            write: takes one layer's new keys and values, and returns all of them.
            entries: how many the longest row has so far.
            last: as in `forward`.
        """
        heard: list[Tensor] = []
        hook = self._head.register_forward_pre_hook(lambda _, args: heard.append(args[0]))
        try:
            out = self.model(
                input_ids=tokens if self._last_token is None else tokens.clamp_max(self._last_token),
                position_ids=positions,
                use_cache=True,
                logits_to_keep=last,
                **{self._cache_name: _Bridge(write, entries)},
                **({"tree_mask": tree} if self.own_attention else {"attention_mask": tree.dense()}),
            )
        finally:
            hook.remove()
        logits, hidden = out.logits, heard[-1] if heard else None
        if last:  # some models score every token whatever `logits_to_keep` says
            logits, hidden = logits[:, -last:], None if hidden is None else hidden[:, -last:]
        return logits, hidden

    def _fitted(self, logits: Tensor) -> Tensor:
        """As many logits as were asked for."""
        if logits.shape[-1] > self.vocab_size:
            return logits[..., : self.vocab_size]
        if logits.shape[-1] < self.vocab_size:
            return pad(logits, (0, self.vocab_size - logits.shape[-1]), value=-torch.inf)
        return logits


def cache_argument(forward: Callable[..., Any]) -> str | None:
    """The argument of a model's `forward` that takes the key/value cache; None if there is none."""
    takes = inspect.signature(forward).parameters
    return next((name for name in CACHE_ARGUMENTS if name in takes), None)


def append_tokens(model: PreTrainedModel, rows: Tensor) -> None:
    """Give the input embedding more rows; the output embedding stays as it is, also where both share their weights.

    Args:
        model: is changed.
        rows: [E, H] float. What tokens beyond the present ones are read as.
    """
    table = model.get_input_embeddings()
    table.weight = nn.Parameter(torch.cat([table.weight, rows.to(table.weight)]), requires_grad=False)


def adapt(model: PreTrainedModel, max_length: int, vocab_size: int | None = None) -> HFModel:
    """Put a loaded model behind our interface, and prove that it can be steered.

    What the model makes of eight tokens by itself must come out again when it reads wrong tokens in between, hidden by
    the mask and then rolled back. Costs three forwards of at most eight tokens, two more for unusual models.

    Args:
        model: a causal language model with any attention implementation.
        max_length: longest sequence it can read, in tokens.
        vocab_size: as in `HFModel`.

    Raises:
        ModelError: the model, named by its type, does not follow our mask, positions or cache.
    """
    name, own = model.config.model_type, model.config._attn_implementation
    size = model.get_input_embeddings().weight.shape[0]
    tokens = probe(size, model.device)
    with torch.no_grad():
        expected = model.eval()(input_ids=tokens, use_cache=False).logits.float()
    if not bool(expected.isfinite().all()):
        raise ModelError(
            f"this `{name}` model gives no usable numbers in {model.dtype}",
            hint="try `--dtype float32`; a half-precision overflow is the usual cause",
        )
    cause: Exception | None = None
    for attention in (ATTENTION, own):
        try:
            model.set_attn_implementation(attention)
            adapted = HFModel(model, max_length, vocab_size)
            if _follows(adapted, tokens, expected):
                return adapted
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever the model's code makes of arguments it does not know
            cause = error
            if isinstance(error, ModelError):  # ours: there is no point in trying the other way
                break
    raise ModelError(f"foretoken cannot steer the attention of `{name}` models", hint=STEERABLE) from cause


def _follows(adapted: HFModel, tokens: Tensor, expected: Tensor) -> bool:
    """Whether masked and rolled back tokens leave no trace, and layers ask for the windows the model declares.

    Args:
        tokens: [1, 8] int64.
        expected: [1, 8, V] float. What the model makes of them by itself.
    """
    model, cache, longest = adapted.model, adapted.new_cache(1), adapted.max_length
    windows = [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=model.config).layers]
    # A mask by cache slot, baked into the model, would mean something else under ours.
    baked = any(b.dim() > 1 and min(b.shape[-2:]) >= longest for b in model.buffers())
    if baked and not adapted.own_attention:
        return False
    trees: list[TreeMask] = []

    def read(*args: Any) -> Scores:
        scores, tree = adapted._read(*args)
        trees.append(tree)
        return scores

    error = distance(read_with_detours(read, cache, tokens), expected[:, 2:])
    declared = {window for window in windows if window and window < longest}
    asked = {window for window in trees[0].windows if window < longest}
    return asked == declared and error < TOLERANCE[model.dtype]
