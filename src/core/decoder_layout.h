#pragma once
/// The tensors of decoder families under both sets of names, Hugging Face's and llama.cpp's, and how the values of one
/// become the other's. Files of both kinds, adapters and gradients are translated by this one table.
///
/// What differs besides the names (llama.cpp's conversion/*.py is the reference):
///   rotary     llama, mistral: llama.cpp rotates neighbouring rows of q and k, Hugging Face rows half a head apart
///   grouped    GPT-NeoX, BLOOM, Falcon: Hugging Face keeps [q … q k v] together per key-value head, llama.cpp all q,
///              then all k, then all v
///   transposed GPT-2's Conv1D keeps [in, out]
///   shift      Gemma's norms compute x (1 + w): llama.cpp stores 1 + w
/// Everything else is the same bits in the same order.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tailor {

enum class DecoderFamily : std::uint8_t {
  kLlama,  // also Mistral
  kQwen2,  // also Qwen2.5
  kQwen3,
  kGemma2,
  kGemma3,
  kPhi3,
  kGpt2,
  kGptNeoX,
  kFalcon,
  kBloom,
  kMpt,
};
inline constexpr DecoderFamily kDecoderFamilies[] = {
    DecoderFamily::kLlama,  DecoderFamily::kQwen2, DecoderFamily::kQwen3, DecoderFamily::kGemma2,
    DecoderFamily::kGemma3, DecoderFamily::kPhi3,  DecoderFamily::kGpt2,  DecoderFamily::kGptNeoX,
    DecoderFamily::kFalcon, DecoderFamily::kBloom, DecoderFamily::kMpt,
};

/// llama.cpp's "general.architecture": "llama", "gptneox", …
std::string_view gguf_architecture(DecoderFamily family);
std::optional<DecoderFamily> family_of_architecture(std::string_view gguf_architecture);
/// From config.json's "model_type": "llama", "mistral", "gpt_neox", "gemma3_text", …
std::optional<DecoderFamily> family_of_model_type(std::string_view model_type);
/// The model types, for messages: "llama, mistral, qwen2, …".
std::string decoder_model_types();
/// What stands before the names of a model with an output layer and is absent from a bare model's: "model.", ….
std::string_view base_prefix(DecoderFamily family);

/// Layers that see a window of the text instead of all of it: all but every `every`-th one.
struct LayerWindows {
  std::int64_t tokens = 0;  // of a window, the token itself included; 0: no layer has one
  std::int64_t every = 1;

  bool has(std::int64_t layer) const { return tokens > 0 && every > 1 && layer % every != every - 1; }
};
/// What llama.cpp takes where a file does not say it: Gemma 2 and 3; other families have no windows in llama.cpp.
LayerWindows usual_windows(DecoderFamily family);

/// What decides names and shapes.
struct DecoderSizes {
  DecoderFamily family = DecoderFamily::kLlama;
  std::int64_t vocabulary = 0, hidden = 0, layers = 0, feed_forward = 0;
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
  std::int64_t positions = 0;      // rows of GPT-2's table; of no meaning elsewhere
  bool tied_output = false;        // the output layer is the token embedding: no tensor of its own
  bool attention_bias = false;     // llama: biases of q, k, v and o (Qwen2's q, k, v and the others' follow the family)
  bool feed_forward_bias = false;  // llama
  bool two_norms = false;          // Falcon 40B: one norm for attention, one for the feed-forward part
};

/// The order of a matrix's rows (its outputs) in the two worlds.
struct RowOrder {
  enum class Kind : std::uint8_t { kSame, kRotary, kGrouped };
  Kind kind = Kind::kSame;
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;  // kRotary: `heads` of the matrix itself

  /// The row of Hugging Face's tensor that is row `row` of llama.cpp's, and the other way round.
  std::int64_t hugging_face_row(std::int64_t row) const;
  std::int64_t gguf_row(std::int64_t row) const;
};

enum class TensorRole : std::uint8_t {
  kEmbedding,  // [vocabulary, hidden]
  kPositions,  // GPT-2's table
  kMatrix,     // of a layer
  kOutput,     // [vocabulary, hidden]
  kNorm,       // weight of a norm
  kBias,       // of a matrix or a norm
};

struct DecoderTensor {
  std::string hugging_face;         // as transformers' …ForCausalLM names it
  std::string gguf;                 // as llama.cpp names it
  std::vector<std::int64_t> shape;  // Hugging Face's, row-major
  TensorRole role = TensorRole::kMatrix;
  RowOrder rows;
  bool transposed = false;
  float shift = 0;  // llama.cpp's value minus Hugging Face's

  std::int64_t elements() const;
  std::vector<std::int64_t> gguf_shape() const;  // row-major: the reverse of GgufTensor's
};

/// All tensors of a model, from the embedding to the output.
std::vector<DecoderTensor> decoder_tensors(const DecoderSizes& sizes);

/// The values of a whole tensor in the other layout. A shift is added in f32 and rounds: to_hugging_face(to_gguf(x)) is
/// x to half a unit in the last place of 1 + x; without a shift both are exact inverses, as is to_gguf(to_hugging_face)
/// of every value that to_gguf() can give. `values` must hold tensor.elements() values (asserted).
std::vector<float> to_gguf(const DecoderTensor& tensor, std::span<const float> values);
std::vector<float> to_hugging_face(const DecoderTensor& tensor, std::span<const float> values);

/// Whether to_hugging_face(to_gguf(values)) gives the same bits.
bool survives_gguf(const DecoderTensor& tensor, std::span<const float> values);

/// The same for values of `element_bytes` each in any type, the shift left out.
std::string bytes_to_gguf(const DecoderTensor& tensor, std::string_view bytes, std::size_t element_bytes);
std::string bytes_to_hugging_face(const DecoderTensor& tensor, std::string_view bytes, std::size_t element_bytes);

/// Rows of `width` values, one for each output of a matrix, in the other order: LoRA's B [out, r], a bias, DoRA's
/// magnitudes, the gradient of a matrix that is not transposed.
std::vector<float> rows_to_gguf(const RowOrder& order, std::span<const float> values, std::int64_t width);
std::vector<float> rows_to_hugging_face(const RowOrder& order, std::span<const float> values, std::int64_t width);

/// A linear layer that an adapter can sit on. Its inputs stand in the same order in both worlds, so LoRA's A [r, in] is
/// the same in both; B [out, r] follows `rows`. Both are for y = x Wᵀ + …: of a layer with fan_in_fan_out (Conv1D)
/// PEFT keeps A and B in the same shapes and transposes their product.
struct DecoderModule {
  std::string hugging_face;  // "model.layers.0.self_attn.q_proj"; PEFT puts "base_model.model." before it
  std::string gguf;          // "blk.0.attn_q"
  std::int64_t in = 0, out = 0;
  RowOrder rows;
  bool fan_in_fan_out = false;
  bool is_output = false;  // the output layer, which PEFT's "all-linear" leaves out
};
std::vector<DecoderModule> decoder_modules(const DecoderSizes& sizes);

}  // namespace tailor
