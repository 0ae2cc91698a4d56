"""Any `transformers` causal language model, with our cache, explicit positions and a tree mask.

The model's own code runs unchanged. Its attention is replaced through the library's attention interface, and the mask
travels as an argument of `forward` down to it, so sliding windows and grouped heads are handled here, once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, Cache, PreTrainedModel

from foretoken.errors import ModelError
from foretoken.models.base import KVCache
from foretoken.models.cache import TensorCache
from foretoken.types import Scores

ATTENTION = "foretoken_tree"


class TreeMask:
    """Which cache slots each new token sees, as additive masks that layers share.

    Args:
        lengths: [B] int64. Committed entries per row.
        positions: [B, P+N] int64. Positions of the pending entries and the new tokens.
        mask: [B, N, P+N] bool. Which of them each new token sees.
        total: T, slots in view.
    """

    def __init__(self, lengths: Tensor, positions: Tensor, mask: Tensor, total: int, dtype: torch.dtype) -> None:
        self._lengths, self._positions, self._mask, self._total, self._dtype = lengths, positions, mask, total, dtype
        self._built: dict[tuple[int | None, int], Tensor | None] = {}

    def additive(self, window: int | None, groups: int) -> Tensor | None:
        """[B, 1, groups*N, T] float, 0 where visible and -inf elsewhere; None when everything is visible.

        Args:
            window: tokens a sliding-window layer sees, the token itself included; None for all.
            groups: query heads per key head, folded into the query axis.
        """
        if window is not None and window >= self._total:
            window = None
        key = (window, groups)
        if key not in self._built:
            allowed = self._allowed(window)
            if bool(allowed.all()):
                self._built[key] = None
            else:
                added = torch.zeros(allowed.shape, dtype=self._dtype, device=allowed.device)
                added.masked_fill_(~allowed, -torch.inf)
                self._built[key] = added[:, None].repeat(1, 1, groups, 1)
        return self._built[key]

    def _allowed(self, window: int | None) -> Tensor:
        """[B, N, T] bool."""
        rows, new, pending = self._mask.shape
        slots = torch.arange(self._total, device=self._mask.device)
        where = self._lengths[:, None] + torch.arange(pending, device=self._mask.device)  # [B, P+N]
        allowed = (slots < self._lengths[:, None])[:, None].repeat(1, new, 1)
        allowed.scatter_(2, where[:, None].expand(rows, new, pending), self._mask)
        if window is not None:
            at = slots.expand(rows, -1).scatter(1, where, self._positions)  # [B, T] position held by each slot
            allowed &= self._positions[:, pending - new :, None] - at[:, None] < window
        return allowed


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

    Returns:
        [B, N, heads, dim] float, and no weights.
    """
    if tree_mask is None or s_aux is not None:
        raise ModelError(
            f"{type(module).__name__} computes attention in a way foretoken cannot steer",
            hint="models whose attention accepts the `transformers` attention interface work, Llama and Qwen3 for two",
        )
    rows, heads, new, dim = query.shape
    groups = heads // key.shape[1]
    folded = query.reshape(rows, key.shape[1], groups * new, dim)
    mask = tree_mask.additive(sliding_window, groups)
    if softcap is None:
        out = scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    else:
        weights = folded @ key.transpose(-1, -2) * (scaling if scaling is not None else dim**-0.5)
        weights = torch.tanh(weights / softcap) * softcap
        weights = weights if mask is None else weights + mask
        out = weights.float().softmax(-1).to(value.dtype) @ value
    return out.reshape(rows, heads, new, value.shape[-1]).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, tree_attention)


class _Bridge(Cache):  # type: ignore[misc]  # the library is not typed
    """Lets a `transformers` model write into our cache."""

    def __init__(self, cache: TensorCache) -> None:
        super().__init__(layers=[])
        self._cache = cache

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        return self._cache.write(layer_idx, key_states, value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return int(self._cache.lengths.max()) + self._cache.pending


class HFModel:
    """A `transformers` causal language model behind the `LanguageModel` interface.

    Cost per forward: one forward of the model; the cache is appended to in place and never copied.

    Args:
        model: a causal language model whose attention implementation is `ATTENTION`.
        max_length: longest sequence it can read, in tokens.
        vocab_size: logits to return; a draft whose embedding is padded otherwise than the target's is cut or filled up
            with tokens of probability 0.
    """

    def __init__(self, model: PreTrainedModel, max_length: int, vocab_size: int | None = None) -> None:
        self.model = model.eval()
        self.max_length = max_length
        self._own_vocab = int(model.config.get_text_config().vocab_size)
        self.vocab_size = vocab_size or self._own_vocab
        self.device = model.device
        self._num_layers = int(model.config.get_text_config().num_hidden_layers)
        self._positions: Tensor | None = None
        self._hidden: Tensor | None = None
        model.get_output_embeddings().register_forward_pre_hook(self._keep_hidden)

    def _keep_hidden(self, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._hidden = args[0]

    def new_cache(self, rows: int) -> TensorCache:
        """An empty cache of that many rows."""
        return TensorCache(self._num_layers, rows)

    @torch.no_grad()
    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor, cache: KVCache, last: int = 0) -> Scores:
        """Read tokens, adding one pending entry per token (see `LanguageModel.forward`)."""
        assert isinstance(cache, TensorCache)
        total, known = cache.begin(positions.cpu())
        where = self.device
        tree = TreeMask(cache.lengths.to(where), known.to(where), mask.to(where), total, self.model.dtype)
        out = self.model(
            input_ids=tokens.to(self.device).clamp_max(self._own_vocab - 1),
            position_ids=positions.to(self.device),
            past_key_values=_Bridge(cache),
            use_cache=True,
            logits_to_keep=last,
            tree_mask=tree,
        )
        cache.end()
        logits = out.logits.float()[..., : self.vocab_size]
        if logits.shape[-1] < self.vocab_size:
            logits = pad(logits, (0, self.vocab_size - logits.shape[-1]), value=-torch.inf)
        return Scores(logits, self._hidden)
