#pragma once
/// What a model file says of a decoder. All families are one network with these switches:
///
///   llama     RMS norms, rotary pairs, SwiGLU (SmolLM2, Llama, Mistral, TinyLlama, Vicuna)
///   qwen2     rotary halves, biases on q, k and v;  qwen3  norms of each head's query and key instead
///   gemma2    GELU gates, norms also behind attention and feed-forward, every other layer sees a window, capped logits
///   gemma3    norms of queries and keys, five of six layers see a window and turn by a base of their own
///   phi3      q, k, v in one matrix, gate and up in one
///   gpt2      layer norms, learned positions, GELU, biases everywhere
///   gptneox   part of each head turns, attention and feed-forward side by side (Pythia)
///   falcon    side by side, several queries to a key;  bloom, mpt  scores fall with distance (ALiBi)

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/decoder_layout.h"
#include "core/result.h"
#include "tune/weights.h"

namespace tailor::tune::decoder {

enum class NormKind : std::uint8_t {
  kRms,    // Zhang and Sennrich, arXiv:1910.07467
  kLayer,  // Ba et al., arXiv:1607.06450
};
enum class Positions : std::uint8_t {
  kRotaryPairs,   // dimensions (2i, 2i + 1) turn together: Su et al., arXiv:2104.09864
  kRotaryHalves,  // dimensions (i, i + rotary / 2)
  kLearned,       // a table is added to the words
  kAlibi,         // Press et al., arXiv:2108.12409
};
enum class Activation : std::uint8_t {
  kSwiglu,     // silu(gate) * up: Shazeer, arXiv:2002.05202
  kGeglu,      // gelu(gate) * up, GELU by tanh
  kGelu,       // GELU by tanh
  kGeluExact,  // x Phi(x)
};
constexpr bool is_gated(Activation a) {
  return a == Activation::kSwiglu || a == Activation::kGeglu;
}

/// Modules that read the same input and are computed as one product.
enum class LinearGroup : std::uint8_t { kQkv = 0, kOutput, kUp, kDown };
constexpr std::size_t kLinearGroups = 4;

/// A linear layer of every block.
struct Module {
  std::string_view gguf;     // in "blk.N.<gguf>.weight"
  std::string_view hf;       // "q_proj", as PEFT's target_modules name it
  std::string_view hf_path;  // "self_attn.q_proj"
  LinearGroup group = LinearGroup::kQkv;
  std::int64_t out = 0, in = 0;  // the weight is [out, in]
};

struct DecoderConfig {
  std::string architecture;  // as GGUF names it
  std::int64_t vocab = 0;
  std::int64_t hidden = 0;
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t rotary = 0;  // dimensions of a head that turn; the rest stay
  std::int64_t ffn = 0;
  /// Longest sequence the model was made for. With longrope (Ding et al., arXiv:2402.13753; Phi-3) the original one:
  /// longer rows turn by other factors, and what such rows have in common with shorter ones could not be shared.
  std::int64_t context = 0;

  NormKind norm = NormKind::kRms;
  double eps = 1e-5;
  Positions positions = Positions::kRotaryPairs;
  double rope_base = 10000, rope_scale = 1;  // positions are divided by the scale
  bool yarn = false;                         // only slow pairs' positions are: Peng et al., arXiv:2309.00071
  std::int64_t original_context = 0;         // yarn: that the model was first trained with
  double rope_attention = 1;                 // cosines and sines are multiplied by it (yarn, longrope)
  double local_rope_base = 0;                // of layers with a window; 0: as the others, with rope_scale
  double alibi_bias = 0;                     // the largest
  Activation activation = Activation::kSwiglu;
  bool parallel = false;    // attention and feed-forward read the same stream and are added to it together
  bool post_norms = false;  // norms also behind attention and feed-forward
  bool tied = false;        // the output layer is the embedding
  double embedding_scale = 1;
  double attention_scale = 1;    // of the scores
  double attention_softcap = 0;  // c tanh(score / c); 0: none
  double logit_softcap = 0;
  double clamp_qkv = 0;  // 0: none
  LayerWindows windows;  // of layers that see no more than that

  std::vector<Module> modules;  // in the order of groups
  std::string_view hf_layers;   // "model.layers.", what stands before a layer's number
  bool hf_transposed = false;   // Hugging Face stores [in, out] (GPT-2's Conv1D)

  bool rotates() const { return positions == Positions::kRotaryPairs || positions == Positions::kRotaryHalves; }
  std::span<const Module> of(LinearGroup group) const;
  std::size_t index(const Module& module) const { return static_cast<std::size_t>(&module - modules.data()); }
  std::int64_t q_width() const { return heads * head_dim; }
  std::int64_t kv_width() const { return kv_heads * head_dim; }

  /// Errors: an architecture or variant that is not one of the above (the message names it), a number that is missing
  /// or impossible.
  static Result<DecoderConfig> read(const BaseWeights& base);
};

/// What frequencies are divided by, [rotary / 2]: of Llama 3; of Phi-3's long models up to the original context, and
/// beyond it.
inline constexpr const char* kRopeFactors = "rope_freqs.weight";
inline constexpr const char* kShortFactors = "rope_factors_short.weight";
inline constexpr const char* kLongFactors = "rope_factors_long.weight";

/// The architectures that read() knows, for messages.
std::vector<std::string_view> decoder_architectures();

}  // namespace tailor::tune::decoder
