#include "core/decoder_layout.h"

#include <fmt/format.h>

#include <cassert>
#include <cstring>

namespace tailor {
namespace {

struct FamilyNames {
  DecoderFamily family;
  std::string_view architecture;
  std::string_view base_prefix;
  std::string_view model_types[2];
};
constexpr FamilyNames kNames[] = {
    {DecoderFamily::kLlama, "llama", "model.", {"llama", "mistral"}},
    {DecoderFamily::kQwen2, "qwen2", "model.", {"qwen2", ""}},
    {DecoderFamily::kQwen3, "qwen3", "model.", {"qwen3", ""}},
    {DecoderFamily::kGemma2, "gemma2", "model.", {"gemma2", ""}},
    {DecoderFamily::kGemma3, "gemma3", "model.", {"gemma3_text", ""}},
    {DecoderFamily::kPhi3, "phi3", "model.", {"phi3", ""}},
    {DecoderFamily::kGpt2, "gpt2", "transformer.", {"gpt2", ""}},
    {DecoderFamily::kGptNeoX, "gptneox", "gpt_neox.", {"gpt_neox", ""}},
    {DecoderFamily::kFalcon, "falcon", "transformer.", {"falcon", ""}},
    {DecoderFamily::kBloom, "bloom", "transformer.", {"bloom", ""}},
    {DecoderFamily::kMpt, "mpt", "transformer.", {"mpt", ""}},
};

const FamilyNames& names_of(DecoderFamily family) {
  for (const FamilyNames& n : kNames) {
    if (n.family == family) return n;
  }
  assert(false);  // the table has every family
  return kNames[0];
}

/// Collects the tensors of one model.
class Table {
 public:
  explicit Table(const DecoderSizes& s) : s_(s) {}
  void table(const std::string& hf, const std::string& gguf, std::int64_t rows, TensorRole role) {
    add(hf + ".weight", gguf + ".weight", {rows, s_.hidden}, role);
  }
  /// Names without ".weight" and ".bias"; `in_layer` ones go through layer().
  void norm(const std::string& hf, const std::string& gguf, std::int64_t size, bool bias, float shift = 0) {
    add(hf + ".weight", gguf + ".weight", {size}, TensorRole::kNorm).shift = shift;
    if (bias) add(hf + ".bias", gguf + ".bias", {size}, TensorRole::kBias);
  }
  void matrix(const std::string& hf, const std::string& gguf, std::int64_t out, std::int64_t in, bool bias,
              const RowOrder& rows = {}) {
    const bool conv = s_.family == DecoderFamily::kGpt2;
    DecoderTensor& t =
        add(hf + ".weight", gguf + ".weight", conv ? std::vector{in, out} : std::vector{out, in}, TensorRole::kMatrix);
    t.transposed = conv;
    t.rows = rows;
    if (bias) add(hf + ".bias", gguf + ".bias", {out}, TensorRole::kBias).rows = rows;
  }
  void output(const std::string& hf) {
    if (!s_.tied_output) table(hf, "output", s_.vocabulary, TensorRole::kOutput);
  }
  std::vector<DecoderTensor> take() { return std::move(tensors_); }

 private:
  DecoderTensor& add(std::string hf, std::string gguf, std::vector<std::int64_t> shape, TensorRole role) {
    tensors_.push_back({std::move(hf), std::move(gguf), std::move(shape), role});
    return tensors_.back();
  }
  const DecoderSizes& s_;
  std::vector<DecoderTensor> tensors_;
};

RowOrder rotary(std::int64_t heads, std::int64_t head_dim) {
  return {RowOrder::Kind::kRotary, heads, heads, head_dim};
}
RowOrder grouped(const DecoderSizes& s) {
  // One group, as Falcon 7B has: q … q k v is llama.cpp's order already.
  if (s.kv_heads == 1) return {};
  return {RowOrder::Kind::kGrouped, s.heads, s.kv_heads, s.head_dim};
}

/// llama, Qwen, Gemma and Phi-3: gated feed-forward part, RMS norms, separate (Phi-3: fused) projections.
void llama_like(Table& t, const DecoderSizes& s) {
  const DecoderFamily f = s.family;
  const bool gemma = f == DecoderFamily::kGemma2 || f == DecoderFamily::kGemma3;
  const bool head_norms = f == DecoderFamily::kQwen3 || f == DecoderFamily::kGemma3;
  const float shift = gemma ? 1.0f : 0.0f;
  const std::int64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  const bool qkv_bias = s.attention_bias || f == DecoderFamily::kQwen2;
  t.table("model.embed_tokens", "token_embd", s.vocabulary, TensorRole::kEmbedding);
  for (std::int64_t i = 0; i < s.layers; ++i) {
    const std::string hf = fmt::format("model.layers.{}.", i), gguf = fmt::format("blk.{}.", i);
    t.norm(hf + "input_layernorm", gguf + "attn_norm", s.hidden, false, shift);
    if (f == DecoderFamily::kPhi3) {
      t.matrix(hf + "self_attn.qkv_proj", gguf + "attn_qkv", q + 2 * kv, s.hidden, false);
    } else {
      const bool turned = f == DecoderFamily::kLlama;
      t.matrix(hf + "self_attn.q_proj", gguf + "attn_q", q, s.hidden, qkv_bias,
               turned ? rotary(s.heads, s.head_dim) : RowOrder{});
      t.matrix(hf + "self_attn.k_proj", gguf + "attn_k", kv, s.hidden, qkv_bias,
               turned ? rotary(s.kv_heads, s.head_dim) : RowOrder{});
      t.matrix(hf + "self_attn.v_proj", gguf + "attn_v", kv, s.hidden, qkv_bias);
    }
    t.matrix(hf + "self_attn.o_proj", gguf + "attn_output", s.hidden, q, s.attention_bias);
    if (head_norms) {
      t.norm(hf + "self_attn.q_norm", gguf + "attn_q_norm", s.head_dim, false, shift);
      t.norm(hf + "self_attn.k_norm", gguf + "attn_k_norm", s.head_dim, false, shift);
    }
    if (gemma) {
      t.norm(hf + "post_attention_layernorm", gguf + "post_attention_norm", s.hidden, false, shift);
      t.norm(hf + "pre_feedforward_layernorm", gguf + "ffn_norm", s.hidden, false, shift);
    } else {
      t.norm(hf + "post_attention_layernorm", gguf + "ffn_norm", s.hidden, false);
    }
    if (f == DecoderFamily::kPhi3) {
      t.matrix(hf + "mlp.gate_up_proj", gguf + "ffn_up", 2 * s.feed_forward, s.hidden, false);
    } else {
      t.matrix(hf + "mlp.gate_proj", gguf + "ffn_gate", s.feed_forward, s.hidden, s.feed_forward_bias);
      t.matrix(hf + "mlp.up_proj", gguf + "ffn_up", s.feed_forward, s.hidden, s.feed_forward_bias);
    }
    t.matrix(hf + "mlp.down_proj", gguf + "ffn_down", s.hidden, s.feed_forward, s.feed_forward_bias);
    if (gemma) t.norm(hf + "post_feedforward_layernorm", gguf + "post_ffw_norm", s.hidden, false, shift);
  }
  t.norm("model.norm", "output_norm", s.hidden, false, shift);
  t.output("lm_head");
}

void gpt2(Table& t, const DecoderSizes& s) {
  t.table("transformer.wte", "token_embd", s.vocabulary, TensorRole::kEmbedding);
  t.table("transformer.wpe", "position_embd", s.positions, TensorRole::kPositions);
  for (std::int64_t i = 0; i < s.layers; ++i) {
    const std::string hf = fmt::format("transformer.h.{}.", i), gguf = fmt::format("blk.{}.", i);
    t.norm(hf + "ln_1", gguf + "attn_norm", s.hidden, true);
    t.matrix(hf + "attn.c_attn", gguf + "attn_qkv", 3 * s.hidden, s.hidden, true);
    t.matrix(hf + "attn.c_proj", gguf + "attn_output", s.hidden, s.hidden, true);
    t.norm(hf + "ln_2", gguf + "ffn_norm", s.hidden, true);
    t.matrix(hf + "mlp.c_fc", gguf + "ffn_up", s.feed_forward, s.hidden, true);
    t.matrix(hf + "mlp.c_proj", gguf + "ffn_down", s.hidden, s.feed_forward, true);
  }
  t.norm("transformer.ln_f", "output_norm", s.hidden, true);
  t.output("lm_head");
}

void gpt_neox(Table& t, const DecoderSizes& s) {
  t.table("gpt_neox.embed_in", "token_embd", s.vocabulary, TensorRole::kEmbedding);
  for (std::int64_t i = 0; i < s.layers; ++i) {
    const std::string hf = fmt::format("gpt_neox.layers.{}.", i), gguf = fmt::format("blk.{}.", i);
    t.norm(hf + "input_layernorm", gguf + "attn_norm", s.hidden, true);
    t.matrix(hf + "attention.query_key_value", gguf + "attn_qkv", 3 * s.hidden, s.hidden, true, grouped(s));
    t.matrix(hf + "attention.dense", gguf + "attn_output", s.hidden, s.hidden, true);
    t.norm(hf + "post_attention_layernorm", gguf + "ffn_norm", s.hidden, true);
    t.matrix(hf + "mlp.dense_h_to_4h", gguf + "ffn_up", s.feed_forward, s.hidden, true);
    t.matrix(hf + "mlp.dense_4h_to_h", gguf + "ffn_down", s.hidden, s.feed_forward, true);
  }
  t.norm("gpt_neox.final_layer_norm", "output_norm", s.hidden, true);
  t.output("embed_out");
}

/// Falcon and BLOOM, which share most names.
void falcon_or_bloom(Table& t, const DecoderSizes& s) {
  const bool bloom = s.family == DecoderFamily::kBloom;
  t.table("transformer.word_embeddings", "token_embd", s.vocabulary, TensorRole::kEmbedding);
  if (bloom) t.norm("transformer.word_embeddings_layernorm", "token_embd_norm", s.hidden, true);
  for (std::int64_t i = 0; i < s.layers; ++i) {
    const std::string hf = fmt::format("transformer.h.{}.", i), gguf = fmt::format("blk.{}.", i);
    if (s.two_norms) {
      t.norm(hf + "ln_mlp", gguf + "attn_norm", s.hidden, true);
      t.norm(hf + "ln_attn", gguf + "attn_norm_2", s.hidden, true);
    } else {
      t.norm(hf + "input_layernorm", gguf + "attn_norm", s.hidden, true);
    }
    t.matrix(hf + "self_attention.query_key_value", gguf + "attn_qkv", (s.heads + 2 * s.kv_heads) * s.head_dim,
             s.hidden, bloom, grouped(s));
    t.matrix(hf + "self_attention.dense", gguf + "attn_output", s.hidden, s.hidden, bloom);
    if (bloom) t.norm(hf + "post_attention_layernorm", gguf + "ffn_norm", s.hidden, true);
    t.matrix(hf + "mlp.dense_h_to_4h", gguf + "ffn_up", s.feed_forward, s.hidden, bloom);
    t.matrix(hf + "mlp.dense_4h_to_h", gguf + "ffn_down", s.hidden, s.feed_forward, bloom);
  }
  t.norm("transformer.ln_f", "output_norm", s.hidden, true);
  t.output("lm_head");
}

void mpt(Table& t, const DecoderSizes& s) {
  t.table("transformer.wte", "token_embd", s.vocabulary, TensorRole::kEmbedding);
  for (std::int64_t i = 0; i < s.layers; ++i) {
    const std::string hf = fmt::format("transformer.blocks.{}.", i), gguf = fmt::format("blk.{}.", i);
    t.norm(hf + "norm_1", gguf + "attn_norm", s.hidden, false);
    t.matrix(hf + "attn.Wqkv", gguf + "attn_qkv", 3 * s.hidden, s.hidden, false);
    t.matrix(hf + "attn.out_proj", gguf + "attn_output", s.hidden, s.hidden, false);
    t.norm(hf + "norm_2", gguf + "ffn_norm", s.hidden, false);
    t.matrix(hf + "ffn.up_proj", gguf + "ffn_up", s.feed_forward, s.hidden, false);
    t.matrix(hf + "ffn.down_proj", gguf + "ffn_down", s.hidden, s.feed_forward, false);
  }
  t.norm("transformer.norm_f", "output_norm", s.hidden, false);
  t.output("lm_head");
}

/// Copies element by element; `gguf_to_hf` gives the direction. Matrices are [rows, width] in llama.cpp's layout.
void reorder(const DecoderTensor& t, const char* from, char* to, std::size_t size, bool gguf_to_hf) {
  const std::vector<std::int64_t> shape = t.gguf_shape();
  const std::int64_t rows = shape[0], width = shape.size() > 1 ? shape[1] : 1;
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t other = t.rows.hugging_face_row(row);
    if (!t.transposed) {
      const std::int64_t source = gguf_to_hf ? row : other, target = gguf_to_hf ? other : row;
      std::memcpy(to + static_cast<std::size_t>(target * width) * size,
                  from + static_cast<std::size_t>(source * width) * size, static_cast<std::size_t>(width) * size);
      continue;
    }
    for (std::int64_t column = 0; column < width; ++column) {
      const auto in_gguf = static_cast<std::size_t>(row * width + column);
      const auto in_hf = static_cast<std::size_t>(column * rows + other);
      std::memcpy(to + (gguf_to_hf ? in_hf : in_gguf) * size, from + (gguf_to_hf ? in_gguf : in_hf) * size, size);
    }
  }
}

std::string reordered(const DecoderTensor& t, std::string_view bytes, std::size_t size, bool gguf_to_hf) {
  assert(bytes.size() == static_cast<std::size_t>(t.elements()) * size);
  std::string out(bytes.size(), '\0');
  reorder(t, bytes.data(), out.data(), size, gguf_to_hf);
  return out;
}

std::vector<float> reordered(const DecoderTensor& t, std::span<const float> values, bool gguf_to_hf) {
  assert(values.size() == static_cast<std::size_t>(t.elements()));
  std::vector<float> out(values.size());
  reorder(t, reinterpret_cast<const char*>(values.data()), reinterpret_cast<char*>(out.data()), sizeof(float),
          gguf_to_hf);
  if (t.shift != 0) {
    for (float& v : out) v += gguf_to_hf ? -t.shift : t.shift;
  }
  return out;
}

std::vector<float> moved_rows(const RowOrder& order, std::span<const float> values, std::int64_t width,
                              bool gguf_to_hf) {
  DecoderTensor t;
  t.shape = {static_cast<std::int64_t>(values.size()) / width, width};
  t.rows = order;
  return reordered(t, values, gguf_to_hf);
}

}  // namespace

std::string_view gguf_architecture(DecoderFamily family) {
  return names_of(family).architecture;
}

std::string_view base_prefix(DecoderFamily family) {
  return names_of(family).base_prefix;
}

std::optional<DecoderFamily> family_of_architecture(std::string_view name) {
  for (const FamilyNames& n : kNames) {
    if (n.architecture == name) return n.family;
  }
  return std::nullopt;
}

LayerWindows usual_windows(DecoderFamily family) {
  if (family == DecoderFamily::kGemma2) return {4096, 2};
  if (family == DecoderFamily::kGemma3) return {0, 6};
  return {};
}

std::optional<DecoderFamily> family_of_model_type(std::string_view name) {
  for (const FamilyNames& n : kNames) {
    for (const std::string_view type : n.model_types) {
      if (!type.empty() && type == name) return n.family;
    }
  }
  return std::nullopt;
}

std::string decoder_model_types() {
  std::string list;
  for (const FamilyNames& n : kNames) {
    for (const std::string_view type : n.model_types) {
      if (!type.empty()) list += (list.empty() ? "" : ", ") + std::string(type);
    }
  }
  return list;
}

std::int64_t RowOrder::hugging_face_row(std::int64_t row) const {
  if (kind == Kind::kSame) return row;
  const std::int64_t in_head = row % head_dim, head = row / head_dim;
  if (kind == Kind::kRotary) return head * head_dim + (in_head % 2) * (head_dim / 2) + in_head / 2;
  const std::int64_t share = heads / kv_heads;  // q heads of a group
  std::int64_t group = head / share, member = head % share;
  if (head >= heads) {
    group = (head - heads) % kv_heads;
    member = share + (head - heads) / kv_heads;
  }
  return (group * (share + 2) + member) * head_dim + in_head;
}

std::int64_t RowOrder::gguf_row(std::int64_t row) const {
  if (kind == Kind::kSame) return row;
  const std::int64_t in_head = row % head_dim, head = row / head_dim;
  if (kind == Kind::kRotary) {
    return head * head_dim + (in_head % (head_dim / 2)) * 2 + in_head / (head_dim / 2);
  }
  const std::int64_t share = heads / kv_heads, group = head / (share + 2), member = head % (share + 2);
  const std::int64_t target = member < share ? group * share + member : heads + (member - share) * kv_heads + group;
  return target * head_dim + in_head;
}

std::int64_t DecoderTensor::elements() const {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

std::vector<std::int64_t> DecoderTensor::gguf_shape() const {
  return transposed ? std::vector<std::int64_t>(shape.rbegin(), shape.rend()) : shape;
}

std::vector<DecoderTensor> decoder_tensors(const DecoderSizes& sizes) {
  Table t(sizes);
  switch (sizes.family) {
    case DecoderFamily::kLlama:
    case DecoderFamily::kQwen2:
    case DecoderFamily::kQwen3:
    case DecoderFamily::kGemma2:
    case DecoderFamily::kGemma3:
    case DecoderFamily::kPhi3:
      llama_like(t, sizes);
      break;
    case DecoderFamily::kGpt2:
      gpt2(t, sizes);
      break;
    case DecoderFamily::kGptNeoX:
      gpt_neox(t, sizes);
      break;
    case DecoderFamily::kFalcon:
    case DecoderFamily::kBloom:
      falcon_or_bloom(t, sizes);
      break;
    case DecoderFamily::kMpt:
      mpt(t, sizes);
      break;
  }
  return t.take();
}

std::vector<float> to_gguf(const DecoderTensor& t, std::span<const float> values) {
  return reordered(t, values, false);
}

std::vector<float> to_hugging_face(const DecoderTensor& t, std::span<const float> values) {
  return reordered(t, values, true);
}

bool survives_gguf(const DecoderTensor& t, std::span<const float> values) {
  if (t.shift == 0) return true;
  for (const float v : values) {
    const float back = (v + t.shift) - t.shift;
    if (std::memcmp(&back, &v, sizeof v) != 0) return false;  // -0 is not +0
  }
  return true;
}

std::string bytes_to_gguf(const DecoderTensor& t, std::string_view bytes, std::size_t element_bytes) {
  return reordered(t, bytes, element_bytes, false);
}

std::string bytes_to_hugging_face(const DecoderTensor& t, std::string_view bytes, std::size_t element_bytes) {
  return reordered(t, bytes, element_bytes, true);
}

std::vector<float> rows_to_gguf(const RowOrder& order, std::span<const float> values, std::int64_t width) {
  return moved_rows(order, values, width, false);
}

std::vector<float> rows_to_hugging_face(const RowOrder& order, std::span<const float> values, std::int64_t width) {
  return moved_rows(order, values, width, true);
}

std::vector<DecoderModule> decoder_modules(const DecoderSizes& sizes) {
  constexpr std::size_t kSuffix = 7;  // ".weight"
  std::vector<DecoderModule> modules;
  for (const DecoderTensor& t : decoder_tensors(sizes)) {
    if (t.role != TensorRole::kMatrix && t.role != TensorRole::kOutput) continue;
    const std::vector<std::int64_t> shape = t.gguf_shape();
    modules.push_back({t.hugging_face.substr(0, t.hugging_face.size() - kSuffix),
                       t.gguf.substr(0, t.gguf.size() - kSuffix), shape[1], shape[0], t.rows, t.transposed,
                       t.role == TensorRole::kOutput});
  }
  return modules;
}

}  // namespace tailor
