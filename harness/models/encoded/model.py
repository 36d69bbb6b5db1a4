"""A Llama-like causal language model with any encoding of position, known to transformers' Auto classes.

Importing this module registers it: AutoConfig and AutoModelForCausalLM then load its checkpoints as any other.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from harness.methods.encoding.base import Shape
from harness.methods.encoding.modules.base import EncodingModule
from harness.methods.encoding.trained_with import TrainedWith
from harness.models.encoded.attention import attend


class EncodedConfig(PreTrainedConfig):
    """Sizes as in Llama's configuration; `position_encoding` is the encoding's name and parameters."""

    model_type = "longctx_encoded"

    def __init__(
        self,
        vocab_size: int = 4096,
        hidden_size: int = 256,
        num_hidden_layers: int = 8,
        num_attention_heads: int = 4,
        intermediate_size: int = 704,
        max_position_embeddings: int = 512,
        position_encoding: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings  # tokens of a training window
        self.position_encoding = position_encoding or {"name": "nope"}
        self.hidden_act, self.mlp_bias = "silu", False
        self.rms_norm_eps, self.initializer_range = 1e-6, 0.02
        super().__init__(**{"tie_word_embeddings": True, **others})

    @property
    def shape(self) -> Shape:
        """What an encoding needs to know."""
        return Shape(self.hidden_size, self.num_hidden_layers, self.num_attention_heads, self.max_position_embeddings)

    def encoding_module(self) -> EncodingModule:
        """A new encoding of the kind that the configuration names."""
        trained_with = TrainedWith.of(self)
        assert trained_with is not None
        return trained_with.encoding.module(self.shape)


class EncodedAttention(nn.Module):
    """Multi-head attention under the model's encoding."""

    def __init__(self, config: EncodedConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.num_heads, width = layer, config.num_attention_heads, config.hidden_size
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, hidden: Tensor, encoding: EncodingModule, prepared: object) -> Tensor:
        """(rows, length, hidden size) in and out."""
        split = (*hidden.shape[:2], self.num_heads, -1)
        query, key, value = (p(hidden).view(split).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        out = attend(query, key, value, encoding, prepared, self.layer)
        projected: Tensor = self.o_proj(out.transpose(1, 2).reshape(hidden.shape))
        return projected


class EncodedLayer(nn.Module):
    """Attention and MLP, each after a norm and added to its input."""

    def __init__(self, config: EncodedConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = EncodedAttention(config, layer)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden: Tensor, encoding: EncodingModule, prepared: object) -> Tensor:
        """(rows, length, hidden size) in and out."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), encoding, prepared)
        out: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return out


class EncodedPreTrainedModel(PreTrainedModel):
    """What transformers needs to know."""

    config: EncodedConfig
    config_class = EncodedConfig
    base_model_prefix = "model"
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, EncodingModule):
            module.reset_parameters()
        else:
            super()._init_weights(module)


class EncodedModel(EncodedPreTrainedModel):
    """Embedding, layers and final norm."""

    def __init__(self, config: EncodedConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(EncodedLayer(config, n) for n in range(config.num_hidden_layers))
        self.norm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.encoding = config.encoding_module()  # last: all others begin with the same weights under any encoding
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: object) -> BaseModelOutputWithPast:
        """Whole windows, (rows, length) token ids; there is no cache and no padding. Raises ValueError for padding."""
        if attention_mask is not None and not bool((attention_mask == 1).all()):
            raise ValueError("windows cannot be padded: attention_mask must be ones")
        prepared = self.encoding.prepare(*input_ids.shape, input_ids.device)
        hidden = self.encoding.embed(self.embed_tokens(input_ids), prepared)
        for layer in self.layers:
            hidden = layer(hidden, self.encoding, prepared)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden))


class EncodedForCausalLM(EncodedPreTrainedModel):
    """The model with its head."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: EncodedConfig) -> None:
        super().__init__(config)
        self.model = EncodedModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids: Tensor, labels: Tensor | None = None, **others: Any) -> CausalLMOutputWithPast:
        """Logits (rows, length, vocabulary), and with `labels` the mean loss in nats a token."""
        logits = self.lm_head(self.model(input_ids, others.get("attention_mask")).last_hidden_state)
        count = {"num_items_in_batch": others["num_items_in_batch"]} if "num_items_in_batch" in others else {}
        loss = None if labels is None else self.loss_function(logits, labels, self.config.vocab_size, **count)
        return CausalLMOutputWithPast(loss=loss, logits=logits)


AutoConfig.register(EncodedConfig.model_type, EncodedConfig, exist_ok=True)
AutoModelForCausalLM.register(EncodedConfig, EncodedForCausalLM, exist_ok=True)
