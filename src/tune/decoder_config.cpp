#include "tune/decoder_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>

namespace tailor::tune::decoder {
namespace {

// A hostile file must not make us allocate without bound before its tensors are looked at.
constexpr std::int64_t kMostLayers = 1024;
constexpr std::int64_t kMostWidth = 1 << 20;
constexpr double kBloomAlibi = 8;  // not in the file

enum class Layout : std::uint8_t { kSeparate, kFusedGated, kFusedPlain };  // of q, k, v and of gate and up

struct Names {
  std::string_view gguf, hf, hf_path;
};

/// What an architecture is, apart from its numbers.
struct Family {
  std::string_view name;
  NormKind norm;
  Positions positions;
  Activation activation;
  Layout layout;
  std::string_view hf_layers;
  std::vector<Names> names;  // in the order of groups
};

const std::vector<Names>& separate_names() {
  static const std::vector<Names> kNames = {
      {"attn_q", "q_proj", "self_attn.q_proj"},   {"attn_k", "k_proj", "self_attn.k_proj"},
      {"attn_v", "v_proj", "self_attn.v_proj"},   {"attn_output", "o_proj", "self_attn.o_proj"},
      {"ffn_gate", "gate_proj", "mlp.gate_proj"}, {"ffn_up", "up_proj", "mlp.up_proj"},
      {"ffn_down", "down_proj", "mlp.down_proj"},
  };
  return kNames;
}

std::vector<Names> fused_names(Names qkv, Names output, Names up, Names down) {
  qkv.gguf = "attn_qkv";
  output.gguf = "attn_output";
  up.gguf = "ffn_up";
  down.gguf = "ffn_down";
  return {qkv, output, up, down};
}

const std::vector<Family>& families() {
  using enum Positions;
  using enum Activation;
  using enum Layout;
  constexpr auto kRms = NormKind::kRms;
  constexpr auto kLayer = NormKind::kLayer;
  static const std::vector<Names> kDense =
      fused_names({{}, "query_key_value", "self_attention.query_key_value"}, {{}, "dense", "self_attention.dense"},
                  {{}, "dense_h_to_4h", "mlp.dense_h_to_4h"}, {{}, "dense_4h_to_h", "mlp.dense_4h_to_h"});
  static const std::vector<Family> kFamilies = {
      {"llama", kRms, kRotaryPairs, kSwiglu, kSeparate, "model.layers.", separate_names()},
      {"qwen2", kRms, kRotaryHalves, kSwiglu, kSeparate, "model.layers.", separate_names()},
      {"qwen3", kRms, kRotaryHalves, kSwiglu, kSeparate, "model.layers.", separate_names()},
      {"gemma2", kRms, kRotaryHalves, kGeglu, kSeparate, "model.layers.", separate_names()},
      {"gemma3", kRms, kRotaryHalves, kGeglu, kSeparate, "model.layers.", separate_names()},
      {"phi3", kRms, kRotaryHalves, kSwiglu, kFusedGated, "model.layers.",
       fused_names({{}, "qkv_proj", "self_attn.qkv_proj"}, {{}, "o_proj", "self_attn.o_proj"},
                   {{}, "gate_up_proj", "mlp.gate_up_proj"}, {{}, "down_proj", "mlp.down_proj"})},
      {"gpt2", kLayer, kLearned, kGelu, kFusedPlain, "transformer.h.",
       fused_names({{}, "c_attn", "attn.c_attn"}, {{}, "c_proj", "attn.c_proj"}, {{}, "c_fc", "mlp.c_fc"},
                   {{}, "c_proj", "mlp.c_proj"})},
      {"gptneox", kLayer, kRotaryHalves, kGeluExact, kFusedPlain, "gpt_neox.layers.",
       fused_names({{}, "query_key_value", "attention.query_key_value"}, {{}, "dense", "attention.dense"},
                   {{}, "dense_h_to_4h", "mlp.dense_h_to_4h"}, {{}, "dense_4h_to_h", "mlp.dense_4h_to_h"})},
      {"falcon", kLayer, kRotaryHalves, kGeluExact, kFusedPlain, "transformer.h.", kDense},
      {"bloom", kLayer, kAlibi, kGelu, kFusedPlain, "transformer.h.", kDense},
      {"mpt", kLayer, kAlibi, kGeluExact, kFusedPlain, "transformer.blocks.",
       fused_names({{}, "Wqkv", "attn.Wqkv"}, {{}, "out_proj", "attn.out_proj"}, {{}, "up_proj", "ffn.up_proj"},
                   {{}, "down_proj", "ffn.down_proj"})},
  };
  return kFamilies;
}

std::vector<Module> modules_of(const Family& family, const DecoderConfig& c) {
  using enum LinearGroup;
  const std::int64_t q = c.q_width(), kv = c.kv_width();
  std::vector<Module> modules;
  for (const Names& n : family.names) {
    Module m{n.gguf, n.hf, n.hf_path, kQkv, 0, c.hidden};
    if (n.gguf == "attn_q") {
      m.out = q;
    } else if (n.gguf == "attn_k" || n.gguf == "attn_v") {
      m.out = kv;
    } else if (n.gguf == "attn_qkv") {
      m.out = q + 2 * kv;
    } else if (n.gguf == "attn_output") {
      m.group = kOutput;
      m.out = c.hidden;
      m.in = q;
    } else if (n.gguf == "ffn_down") {
      m.group = kDown;
      m.out = c.hidden;
      m.in = c.ffn;
    } else {
      m.group = kUp;
      m.out = family.layout == Layout::kFusedGated ? 2 * c.ffn : c.ffn;
    }
    modules.push_back(m);
  }
  return modules;
}

/// The metadata of one architecture, by keys without its name.
class Numbers {
 public:
  Numbers(const BaseWeights& base, std::string_view architecture)
      : base_(base), prefix_(std::string(architecture) + ".") {}

  std::string where() const { return base_.path().string(); }
  std::optional<double> find(std::string_view key) const { return base_.number(prefix_ + std::string(key)); }
  std::optional<std::string> text(std::string_view key) const { return base_.text(prefix_ + std::string(key)); }

  Result<std::int64_t> whole(std::string_view key, std::optional<std::int64_t> fallback = {}) const {
    const std::optional<double> value = find(key);
    if (!value && fallback) return *fallback;
    if (value && std::abs(*value) < 9e15 && std::floor(*value) == *value) return static_cast<std::int64_t>(*value);
    return Error{ErrorCode::kCorruptData,
                 value
                     ? fmt::format("{}: metadata '{}{}' is {}, expected a whole number", where(), prefix_, key, *value)
                     : fmt::format("{}: metadata '{}{}' is missing or not a number", where(), prefix_, key),
                 "the file is incomplete: fetch it again"};
  }
  Result<double> need(std::string_view key) const {
    if (const std::optional<double> value = find(key)) return *value;
    return Error{ErrorCode::kCorruptData, fmt::format("{}: metadata '{}{}' is missing", where(), prefix_, key),
                 "the file is incomplete: fetch it again"};
  }
  Error cannot(std::string what, std::string hint) const {
    return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", where(), what), std::move(hint)};
  }

 private:
  const BaseWeights& base_;
  std::string prefix_;
};

Status read_sizes(const Numbers& n, DecoderConfig& c) {
  TAILOR_TRY(c.layers, n.whole("block_count"));
  TAILOR_TRY(c.hidden, n.whole("embedding_length"));
  TAILOR_TRY(c.ffn, n.whole("feed_forward_length"));
  TAILOR_TRY(c.heads, n.whole("attention.head_count"));
  TAILOR_TRY(c.kv_heads, n.whole("attention.head_count_kv", c.heads));
  TAILOR_TRY(c.context, n.whole("context_length"));
  if (c.layers < 1 || c.layers > kMostLayers || c.hidden < 1 || c.hidden > kMostWidth || c.ffn < 1 ||
      c.ffn > kMostWidth || c.heads < 1 || c.heads > c.hidden || c.kv_heads < 1 || c.heads % c.kv_heads != 0) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: impossible shape: {} layers, hidden {}, feed-forward {}, {} heads, {} key heads",
                             n.where(), c.layers, c.hidden, c.ffn, c.heads, c.kv_heads),
                 ""};
  }
  TAILOR_TRY(c.head_dim, n.whole("attention.key_length", c.hidden / c.heads));
  TAILOR_TRY(const std::int64_t values, n.whole("attention.value_length", c.head_dim));
  TAILOR_TRY(c.rotary, n.whole("rope.dimension_count", c.head_dim));
  if (!c.rotates()) c.rotary = 0;
  if (c.head_dim < 1 || c.head_dim > kMostWidth || c.rotary < 0 || c.rotary > c.head_dim || c.rotary % 2 != 0 ||
      values != c.head_dim) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: {} of {} head dimensions cannot be rotated", n.where(), c.rotary, c.head_dim), ""};
  }
  return {};
}

Status read_rope(const Numbers& n, DecoderConfig& c) {
  c.rope_base = n.find("rope.freq_base").value_or(c.rope_base);
  c.rope_attention = n.find("rope.scaling.attn_factor").value_or(1);
  TAILOR_TRY(c.original_context, n.whole("rope.scaling.original_context_length", c.context));
  const std::string scaling = n.text("rope.scaling.type").value_or("linear");  // as llama.cpp where it is not said
  const double factor = n.find("rope.scaling.factor").value_or(n.find("rope.scale_linear").value_or(1));
  if (!(factor > 0) || !(c.rope_attention > 0) || !(c.rope_base > 1) || c.original_context < 1) {
    return Error{
        ErrorCode::kCorruptData,
        fmt::format("{}: a rotary embedding of base {}, factor {}, attention factor {} and original context {} "
                    "makes no sense",
                    n.where(), c.rope_base, factor, c.rope_attention, c.original_context),
        ""};
  }
  if (scaling == "none") return {};
  if (scaling == "linear" || scaling == "longrope") {
    c.rope_scale = factor;
    return {};
  }
  if (scaling == "yarn" && factor >= 1 && c.architecture != "gemma3") {
    c.yarn = true;
    c.rope_scale = factor;
    c.rope_attention *= 1 + 0.1 * std::log(factor);
    return {};
  }
  return n.cannot(fmt::format("rotary scaling '{}' by {} cannot be tuned with {}", scaling, factor, c.architecture),
                  "none, linear, longrope and (but for Gemma 3) yarn can");
}

/// What only one architecture has.
Status read_particulars(const Numbers& n, DecoderConfig& c) {
  const std::string& a = c.architecture;
  c.attention_scale = 1 / std::sqrt(static_cast<double>(c.head_dim));
  if (a == "gemma2" || a == "gemma3") {
    constexpr std::int64_t kLayersOf27B2 = 46, kLayersOf27B3 = 62;  // llama.cpp tells them by their layers, too
    if (c.layers == (a == "gemma2" ? kLayersOf27B2 : kLayersOf27B3))
      c.attention_scale = 1 / std::sqrt(static_cast<double>(c.hidden / c.heads));
    c.embedding_scale = std::sqrt(static_cast<double>(c.hidden));
    c.post_norms = true;
    const LayerWindows usual = usual_windows(a == "gemma2" ? DecoderFamily::kGemma2 : DecoderFamily::kGemma3);
    TAILOR_TRY(c.windows.tokens, n.whole("attention.sliding_window", usual.tokens));
    TAILOR_TRY(c.windows.every, n.whole("attention.sliding_window_pattern", usual.every));
    c.logit_softcap = n.find("final_logit_softcapping").value_or(a == "gemma2" ? 30 : 0);
    if (a == "gemma2") c.attention_softcap = n.find("attn_logit_softcapping").value_or(50);
    if (a == "gemma3" && c.windows.tokens > 0) c.local_rope_base = n.find("rope.freq_base_swa").value_or(10000);
    if (c.windows.every < 1 || c.windows.tokens < 0) return n.cannot("its window makes no sense", "");
  } else if (a == "gptneox") {
    c.parallel = n.find("use_parallel_residual").value_or(1) != 0;
  } else if (a == "falcon") {
    c.parallel = true;
  } else if (a == "bloom") {
    c.alibi_bias = kBloomAlibi;
  } else if (a == "mpt") {
    c.alibi_bias = n.find("attention.max_alibi_bias").value_or(0);
    c.clamp_qkv = n.find("attention.clamp_kqv").value_or(0);
    if (c.alibi_bias <= 0)
      return n.cannot("an MPT model with learned positions cannot be tuned yet", "those with ALiBi can");
  }
  return {};
}

}  // namespace

std::vector<std::string_view> decoder_architectures() {
  std::vector<std::string_view> names;
  for (const Family& f : families()) names.push_back(f.name);
  return names;
}

std::span<const Module> DecoderConfig::of(LinearGroup group) const {
  std::size_t first = 0;
  while (first < modules.size() && modules[first].group != group) ++first;
  std::size_t last = first;
  while (last < modules.size() && modules[last].group == group) ++last;
  return std::span(modules).subspan(first, last - first);
}

Result<DecoderConfig> DecoderConfig::read(const BaseWeights& base) {
  const Family* family = nullptr;
  for (const Family& f : families()) {
    if (f.name == base.architecture()) family = &f;
  }
  if (family == nullptr) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{}: architecture '{}' cannot be tuned as a decoder", base.path().string(), base.architecture()),
        fmt::format("those that can: {}", fmt::join(decoder_architectures(), ", "))};
  }
  DecoderConfig c;
  c.architecture = base.architecture();
  c.norm = family->norm;
  c.positions = family->positions;
  c.activation = family->activation;
  c.hf_layers = family->hf_layers;
  c.hf_transposed = family->name == "gpt2";
  const Numbers numbers(base, c.architecture);
  TAILOR_CHECK(read_sizes(numbers, c));
  TAILOR_TRY(c.eps, numbers.need(c.norm == NormKind::kRms ? "attention.layer_norm_rms_epsilon"
                                                          : "attention.layer_norm_epsilon"));
  TAILOR_CHECK(read_rope(numbers, c));
  TAILOR_CHECK(read_particulars(numbers, c));
  if (c.rotates() && base.has(kShortFactors)) c.context = std::min(c.context, c.original_context);
  if (numbers.find("expert_count").value_or(0) > 0)
    return numbers.cannot("a mixture of experts cannot be tuned yet", "use a dense model");
  c.modules = modules_of(*family, c);
  return c;
}

}  // namespace tailor::tune::decoder
