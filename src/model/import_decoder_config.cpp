#include "model/import_decoder_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "model/import_config.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostLayers = 512, kMostHidden = 65'536, kMostHeads = 1024, kMostInner = 1'000'000;
constexpr std::int64_t kMostPositions = 100'000'000, kMostVocabulary = 4'000'000;

/// config.json with checks; a null counts as absent.
class Reader {
 public:
  Reader(fs::path file, Json json) : file_(std::move(file)), json_(std::move(json)) {}

  const Json* find(const char* key) const {
    const auto it = json_.find(key);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }
  /// The first of the names that is there.
  const char* first_of(std::initializer_list<const char*> keys) const {
    for (const char* key : keys) {
      if (find(key) != nullptr) return key;
    }
    return *keys.begin();
  }
  Result<std::int64_t> whole(std::initializer_list<const char*> keys, std::int64_t limit,
                             std::int64_t least = 1) const {
    return read_whole(file_, json_, first_of(keys), least, limit);
  }
  Result<std::int64_t> whole_or(std::initializer_list<const char*> keys, std::int64_t limit,
                                std::int64_t otherwise) const {
    return find(first_of(keys)) == nullptr ? Result(otherwise) : whole(keys, limit);
  }
  Result<double> number_or(const Json& object, const char* key, double otherwise, double least, double most) const {
    const auto it = object.find(key);
    if (it == object.end() || it->is_null()) return otherwise;
    if (!it->is_number() || !(it->get<double>() >= least) || !(it->get<double>() <= most)) {
      return bad(
          fmt::format("'{}' is {}, expected a number from {} to {}", key, dump_json(*it).substr(0, 40), least, most));
    }
    return it->get<double>();
  }
  Result<double> number_or(const char* key, double otherwise, double least, double most) const {
    return number_or(json_, key, otherwise, least, most);
  }
  bool flag(const char* key, bool otherwise) const {
    const Json* value = find(key);
    return value != nullptr && value->is_boolean() ? value->get<bool>() : otherwise;
  }
  std::string text(const char* key, const char* otherwise) const {
    const Json* value = find(key);
    return value != nullptr && value->is_string() ? value->get<std::string>() : std::string(otherwise);
  }
  /// An option that llama.cpp computes in one way only.
  Status must_be(const char* key, bool expected, bool otherwise) const {
    if (flag(key, otherwise) == expected) return {};
    return bad(
        fmt::format("'{}' is {}, which llama.cpp does not compute for this family", key, expected ? "false" : "true"));
  }
  Status must_be_absent(const char* key) const {
    const Json* value = find(key);
    if (value == nullptr) return {};
    return bad(fmt::format("'{}' is {}, which llama.cpp does not compute for this family", key,
                           dump_json(*value).substr(0, 40)));
  }
  Status activation(const char* key, std::initializer_list<std::string_view> good) const {
    const std::string name = text(key, std::string(*good.begin()).c_str());
    if (std::find(good.begin(), good.end(), name) != good.end()) return {};
    return bad(fmt::format("'{}' is '{}', expected '{}'", key, name, *good.begin()));
  }
  Error bad(std::string_view what) const { return cannot_import(file_, what); }
  const Json& json() const { return json_; }
  const fs::path& file() const { return file_; }

 private:
  fs::path file_;
  Json json_;
};

/// The rotary embedding, from either generation of keys.
struct Rope {
  std::string type = "default";
  double theta = 10'000;
  double local_theta = 0;  // Gemma 3's layers with a window; 0: not given
  double partial = 1;      // share of a head that is rotated
  Json parameters = Json::object();
};

Result<Rope> read_rope(const Reader& r, double theta) {
  Rope rope;
  rope.theta = theta;
  constexpr double kMost = 1e12;
  const char* old_theta = r.first_of({"rope_theta", "rotary_emb_base"});
  TAILOR_TRY(rope.theta, r.number_or(old_theta, rope.theta, 1, kMost));
  TAILOR_TRY(rope.local_theta, r.number_or("rope_local_base_freq", 0, 1, kMost));
  TAILOR_TRY(rope.partial, r.number_or(r.first_of({"partial_rotary_factor", "rotary_pct"}), 1, 0, 1));
  const Json* given = r.find(r.first_of({"rope_parameters", "rope_scaling"}));
  if (given == nullptr) return rope;
  if (!given->is_object()) return r.bad("the rotary embedding's parameters are not an object");
  const Json* global = given;
  if (const auto full = given->find("full_attention"); full != given->end() && full->is_object()) {
    global = &*full;
    if (const auto local = given->find("sliding_attention"); local != given->end() && local->is_object()) {
      TAILOR_TRY(rope.local_theta, r.number_or(*local, "rope_theta", rope.local_theta, 1, kMost));
    }
  }
  rope.parameters = *global;
  for (const char* key : {"type", "rope_type"}) {
    if (const auto it = global->find(key); it != global->end() && it->is_string()) rope.type = it->get<std::string>();
  }
  if (rope.type == "su") rope.type = "longrope";  // an older name
  TAILOR_TRY(rope.theta, r.number_or(*global, "rope_theta", rope.theta, 1, kMost));
  TAILOR_TRY(rope.partial, r.number_or(*global, "partial_rotary_factor", rope.partial, 0, 1));
  return rope;
}

/// Collects metadata under the family's prefix.
class Metadata {
 public:
  Metadata(DecoderConfig& config) : config_(config), prefix_(gguf_architecture(config.sizes.family)) {}
  void u32(const char* key, std::int64_t n) { add(key, GgufValue::u32(static_cast<std::uint32_t>(n))); }
  void f32(const char* key, double x) { add(key, GgufValue::f32(static_cast<float>(x))); }
  void flag(const char* key, bool b) { add(key, GgufValue::boolean(b)); }
  void text(const char* key, std::string_view s) { add(key, GgufValue::string(s)); }

 private:
  void add(const char* key, GgufValue value) {
    config_.metadata.emplace_back(fmt::format("{}.{}", prefix_, key), std::move(value));
  }
  DecoderConfig& config_;
  std::string prefix_;
};

/// Beside the parameters it goes before the one in them, as in transformers.
Result<std::int64_t> original_context(const Reader& r, const Rope& rope, std::int64_t otherwise) {
  const bool inside = rope.parameters.contains("original_max_position_embeddings");
  if (inside && r.find("original_max_position_embeddings") == nullptr) {
    return read_whole(r.file(), rope.parameters, "original_max_position_embeddings", 1, kMostPositions);
  }
  return r.whole_or({"original_max_position_embeddings"}, kMostPositions, otherwise);
}

/// Llama 3.1: frequencies whose wave is long against the original context are divided by `factor`, short ones stay,
/// those between are interpolated.
Status set_llama3_factors(const Reader& r, const Rope& rope, DecoderConfig& c) {
  TAILOR_TRY(const double factor, r.number_or(rope.parameters, "factor", 8, 1, 1e6));
  TAILOR_TRY(const double low, r.number_or(rope.parameters, "low_freq_factor", 1, 1e-3, 1e6));
  TAILOR_TRY(const double high, r.number_or(rope.parameters, "high_freq_factor", 4, 1e-3, 1e6));
  TAILOR_TRY(const std::int64_t context, original_context(r, rope, 8192));
  if (high <= low) return r.bad("'high_freq_factor' is not above 'low_freq_factor'");
  const auto length = static_cast<double>(context);
  for (std::int64_t i = 0; i < c.sizes.head_dim / 2; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(c.sizes.head_dim);
    const double wave = 2 * std::numbers::pi * std::pow(rope.theta, exponent);
    double divisor = 1;
    if (wave > length / low) {
      divisor = factor;
    } else if (wave >= length / high) {
      const double smooth = (length / wave - low) / (high - low);
      divisor = 1 / ((1 - smooth) / factor + smooth);
    }
    c.rope_freqs.push_back(static_cast<float>(divisor));
  }
  return {};
}

Result<std::vector<float>> read_factors(const Reader& r, const Rope& rope, const char* key, std::int64_t count) {
  const auto it = rope.parameters.find(key);
  if (it == rope.parameters.end() || !it->is_array() || static_cast<std::int64_t>(it->size()) != count) {
    return r.bad(fmt::format("the rotary embedding's '{}' is not a list of {} numbers", key, count));
  }
  std::vector<float> factors;
  for (const Json& x : *it) {
    if (!x.is_number() || !(x.get<double>() > 0)) return r.bad(fmt::format("'{}' holds no positive number", key));
    factors.push_back(x.get<float>());
  }
  return factors;
}

/// LongRoPE: two sets of divisors, and attention scaled by the growth of its entropy with the context.
Status set_longrope(const Reader& r, const Rope& rope, std::int64_t original, std::int64_t pairs, Metadata& m,
                    DecoderConfig& c) {
  TAILOR_TRY(c.rope_long, read_factors(r, rope, "long_factor", pairs));
  TAILOR_TRY(c.rope_short, read_factors(r, rope, "short_factor", pairs));
  const double grown = static_cast<double>(c.context) / static_cast<double>(original);
  TAILOR_TRY(const double growth, r.number_or(rope.parameters, "factor", grown, 0, 1e6));
  const double usual = growth > 1 ? std::sqrt(1 + std::log(growth) / std::log(static_cast<double>(original))) : 1;
  TAILOR_TRY(const double factor, r.number_or(rope.parameters, "attention_factor", usual, 1e-3, 1e3));
  m.f32("rope.scaling.attn_factor", factor);
  return {};
}

/// What llama.cpp computes in one way only.
Status require_usual_yarn(const Reader& r, const Rope& rope) {
  const std::pair<const char*, Json> usual[] = {{"beta_fast", 32}, {"beta_slow", 1}, {"truncate", true}};
  for (const auto& [key, value] : usual) {
    const auto it = rope.parameters.find(key);
    if (it == rope.parameters.end() || it->is_null() || *it == value) continue;
    return r.bad(fmt::format("the rotary embedding's '{}' is {}, llama.cpp computes with {}", key,
                             dump_json(*it).substr(0, 40), dump_json(value)));
  }
  return {};
}

/// What cosines and sines are multiplied by, over what llama.cpp takes for the factor itself (1 + 0.1 ln factor).
Result<double> yarn_attention(const Reader& r, const Rope& rope, double factor) {
  const auto grown = [&](double scale) { return factor <= 1 ? 1.0 : 0.1 * scale * std::log(factor) + 1; };
  TAILOR_TRY(const double mscale, r.number_or(rope.parameters, "mscale", 0, 0, 1e3));
  TAILOR_TRY(const double all_dim, r.number_or(rope.parameters, "mscale_all_dim", 0, 0, 1e3));
  const double usual = mscale > 0 && all_dim > 0 ? grown(mscale) / grown(all_dim) : grown(1);
  TAILOR_TRY(const double given, r.number_or(rope.parameters, "attention_factor", usual, 1e-3, 1e3));
  return given / grown(1);
}

/// The scaling of the rotary embedding that llama.cpp computes for llama, Qwen and Gemma 3.
Status set_rope(const Reader& r, const Rope& rope, Metadata& m, DecoderConfig& c) {
  if (rope.type == "linear") {
    TAILOR_TRY(const double factor, r.number_or(rope.parameters, "factor", 1, 1e-3, 1e6));
    m.text("rope.scaling.type", "linear");
    m.f32("rope.scaling.factor", factor);
  } else if (rope.type == "yarn" && c.sizes.family != DecoderFamily::kGemma3) {
    TAILOR_TRY(const std::int64_t context, original_context(r, rope, c.context));
    const double grown = static_cast<double>(c.context) / static_cast<double>(context);
    TAILOR_TRY(const double factor, r.number_or(rope.parameters, "factor", grown, 1, 1e6));
    TAILOR_CHECK(require_usual_yarn(r, rope));
    TAILOR_TRY(const double attention, yarn_attention(r, rope, factor));
    m.text("rope.scaling.type", "yarn");
    m.f32("rope.scaling.factor", factor);
    m.u32("rope.scaling.original_context_length", context);
    if (attention != 1) m.f32("rope.scaling.attn_factor", attention);
  } else if (rope.type == "longrope" && c.sizes.family == DecoderFamily::kLlama) {
    TAILOR_TRY(const std::int64_t original, original_context(r, rope, c.context));
    m.text("rope.scaling.type", "longrope");
    m.u32("rope.scaling.original_context_length", original);
    TAILOR_CHECK(set_longrope(r, rope, original, c.sizes.head_dim / 2, m, c));
  } else if (rope.type == "llama3" && c.sizes.family == DecoderFamily::kLlama) {
    TAILOR_CHECK(set_llama3_factors(r, rope, c));
  } else if (rope.type != "default") {
    return r.bad(fmt::format("the rotary embedding is scaled as '{}', which is not supported for model type '{}'",
                             rope.type, c.model_type));
  }
  if (rope.partial != 1) {
    return r.bad(
        fmt::format("'partial_rotary_factor' is {}, which llama.cpp does not compute for this family", rope.partial));
  }
  m.f32("rope.freq_base", rope.theta);
  return {};
}

/// Which layers look at a window only, from either generation of keys; empty: not said.
Result<std::vector<bool>> read_windows(const Reader& r, std::int64_t layers) {
  std::vector<bool> windows;
  if (const Json* types = r.find("layer_types")) {
    if (!types->is_array() || static_cast<std::int64_t>(types->size()) != layers) {
      return r.bad(fmt::format("'layer_types' does not name the {} layers", layers));
    }
    for (const Json& type : *types) {
      if (type != "sliding_attention" && type != "full_attention") {
        return r.bad(fmt::format("'layer_types' names {}, which is not supported", dump_json(type).substr(0, 40)));
      }
      windows.push_back(type == "sliding_attention");
    }
  } else if (r.find("sliding_window_pattern") != nullptr) {
    TAILOR_TRY(const std::int64_t pattern, r.whole({"sliding_window_pattern"}, kMostLayers));
    for (std::int64_t i = 0; i < layers; ++i) windows.push_back(i % pattern < pattern - 1);
  }
  return windows;
}

bool is_pattern(const std::vector<bool>& windows, std::size_t pattern) {
  for (std::size_t i = 0; i < windows.size(); ++i) {
    if (windows[i] != (i % pattern < pattern - 1)) return false;
  }
  return true;
}

Status read_common(const Reader& r, DecoderConfig& c) {
  DecoderSizes& s = c.sizes;
  TAILOR_TRY(s.vocabulary, r.whole({"vocab_size"}, kMostVocabulary));
  TAILOR_TRY(s.hidden, r.whole({"hidden_size", "n_embed", "n_embd", "d_model"}, kMostHidden));
  TAILOR_TRY(s.layers, r.whole({"num_hidden_layers", "n_layer", "n_layers"}, kMostLayers));
  TAILOR_TRY(s.heads, r.whole({"num_attention_heads", "n_head", "n_heads"}, kMostHeads));
  TAILOR_TRY(s.head_dim, r.whole_or({"head_dim"}, kMostHidden, std::max<std::int64_t>(s.hidden / s.heads, 1)));
  if (r.find("head_dim") == nullptr && s.hidden % s.heads != 0) {
    return r.bad(fmt::format("the hidden size {} is not a multiple of {} attention heads", s.hidden, s.heads));
  }
  s.kv_heads = s.heads;
  return {};
}

Status check_kv_heads(const Reader& r, const DecoderSizes& s) {
  if (s.heads % s.kv_heads == 0) return {};
  return r.bad(fmt::format("{} attention heads cannot share {} key-value heads", s.heads, s.kv_heads));
}

/// llama, Qwen, Gemma.
Status read_llama_like(const Reader& r, DecoderConfig& c) {
  DecoderSizes& s = c.sizes;
  const bool gemma = s.family == DecoderFamily::kGemma2 || s.family == DecoderFamily::kGemma3;
  const bool qwen = s.family == DecoderFamily::kQwen2 || s.family == DecoderFamily::kQwen3;
  TAILOR_CHECK(read_common(r, c));
  TAILOR_TRY(s.feed_forward, r.whole({"intermediate_size"}, kMostInner));
  TAILOR_TRY(s.kv_heads, r.whole_or({"num_key_value_heads"}, kMostHeads, s.heads));
  TAILOR_CHECK(check_kv_heads(r, s));
  TAILOR_TRY(c.context, r.whole_or({"max_position_embeddings"}, kMostPositions, gemma ? 131'072 : 2048));
  TAILOR_TRY(const double eps, r.number_or("rms_norm_eps", 1e-6, 0, 0.1));
  s.tied_output = r.flag("tie_word_embeddings", gemma);
  if (gemma) {
    // Files made before "hidden_activation" say "gelu" and mean the approximation by tanh, as transformers does.
    TAILOR_CHECK(r.activation("hidden_activation", {"gelu_pytorch_tanh"}));
    TAILOR_CHECK(r.must_be("attention_bias", false, false));
    TAILOR_CHECK(r.must_be("use_bidirectional_attention", false, false));
    if (s.family == DecoderFamily::kGemma2 && !s.tied_output) {
      return r.bad("'tie_word_embeddings' is false, which llama.cpp does not compute for this family");
    }
  } else {
    TAILOR_CHECK(r.activation("hidden_act", {"silu"}));
  }
  if (qwen) {
    TAILOR_CHECK(r.must_be("attention_bias", false, false));
    TAILOR_CHECK(r.must_be("use_sliding_window", false, false));
  }
  if (s.family == DecoderFamily::kQwen2 && s.head_dim * s.heads != s.hidden) {
    return r.bad("'head_dim' is not the hidden size over the heads, which llama.cpp does not compute for this family");
  }
  if (s.family == DecoderFamily::kLlama) {
    s.attention_bias = r.flag("attention_bias", false);
    s.feed_forward_bias = r.flag("mlp_bias", false);
  }

  Metadata m(c);
  m.u32("block_count", s.layers);
  m.u32("context_length", c.context);
  m.u32("embedding_length", s.hidden);
  m.u32("feed_forward_length", s.feed_forward);
  m.u32("attention.head_count", s.heads);
  m.u32("attention.head_count_kv", s.kv_heads);
  TAILOR_TRY(const Rope rope, read_rope(r, s.family == DecoderFamily::kGemma3 ? 1e6 : 1e4));
  TAILOR_CHECK(set_rope(r, rope, m, c));
  m.f32("attention.layer_norm_rms_epsilon", eps);
  if (r.find("head_dim") != nullptr || gemma) {
    m.u32("attention.key_length", s.head_dim);
    m.u32("attention.value_length", s.head_dim);
  }
  if (s.family == DecoderFamily::kLlama) {
    m.u32("vocab_size", s.vocabulary);
    m.u32("rope.dimension_count", s.head_dim);
  }
  if (!gemma) return {};

  // llama.cpp scales by the head's size, in the models of 27 thousand million parameters by hidden / heads.
  const std::int64_t largest = s.family == DecoderFamily::kGemma2 ? 46 : 62;
  const std::int64_t scale = s.layers == largest ? s.hidden / s.heads : s.head_dim;
  TAILOR_TRY(const double scalar, r.number_or("query_pre_attn_scalar", 256, 1e-3, 1e6));
  if (scalar != static_cast<double>(scale)) {
    return r.bad(fmt::format("'query_pre_attn_scalar' is {}, llama.cpp computes with {}", scalar, scale));
  }
  TAILOR_TRY(const std::int64_t window, r.whole_or({"sliding_window"}, kMostPositions, 4096));
  TAILOR_TRY(const std::vector<bool> windows, read_windows(r, s.layers));
  if (s.family == DecoderFamily::kGemma2) {
    TAILOR_TRY(const double attention_cap, r.number_or("attn_logit_softcapping", 50, 1e-3, 1e6));
    TAILOR_TRY(const double final_cap, r.number_or("final_logit_softcapping", 30, 1e-3, 1e6));
    if (!windows.empty() && !is_pattern(windows, 2)) {
      return r.bad("'layer_types' does not alternate between a window and the whole text");
    }
    m.f32("attn_logit_softcapping", attention_cap);
    m.f32("final_logit_softcapping", final_cap);
    m.u32("attention.sliding_window", window);
    return {};
  }
  TAILOR_CHECK(r.must_be_absent("attn_logit_softcapping"));
  if (r.find("final_logit_softcapping") != nullptr) {
    TAILOR_TRY(const double cap, r.number_or("final_logit_softcapping", 0, 1e-3, 1e6));
    m.f32("final_logit_softcapping", cap);
  }
  const bool any_window = windows.empty() || std::find(windows.begin(), windows.end(), true) != windows.end();
  if (!any_window) return {};
  if (rope.local_theta > 0) m.f32("rope.freq_base_swa", rope.local_theta);
  m.u32("attention.sliding_window", window);
  if (windows.empty() || is_pattern(windows, 6)) return {};
  for (std::size_t pattern = 2; pattern <= windows.size(); ++pattern) {
    if (!is_pattern(windows, pattern)) continue;
    m.u32("attention.sliding_window_pattern", static_cast<std::int64_t>(pattern));
    return {};
  }
  return r.bad("'layer_types' does not repeat some layers with a window and one over the whole text");
}

Status read_phi3(const Reader& r, DecoderConfig& c) {
  DecoderSizes& s = c.sizes;
  TAILOR_CHECK(read_common(r, c));
  TAILOR_TRY(s.feed_forward, r.whole({"intermediate_size"}, kMostInner));
  TAILOR_TRY(s.kv_heads, r.whole_or({"num_key_value_heads"}, kMostHeads, s.heads));
  TAILOR_CHECK(check_kv_heads(r, s));
  TAILOR_TRY(c.context, r.whole_or({"max_position_embeddings"}, kMostPositions, 4096));
  TAILOR_TRY(const double eps, r.number_or("rms_norm_eps", 1e-5, 0, 0.1));
  TAILOR_CHECK(r.activation("hidden_act", {"silu"}));
  s.tied_output = r.flag("tie_word_embeddings", false);
  TAILOR_TRY(const Rope rope, read_rope(r, 1e4));
  TAILOR_TRY(const std::int64_t original, original_context(r, rope, c.context));
  const auto rotated = static_cast<std::int64_t>(rope.partial * static_cast<double>(s.hidden)) / s.heads;
  if (s.head_dim * s.heads != s.hidden || rotated < 2 || rotated % 2 != 0) {
    return r.bad(fmt::format("{} of the {} values of a head are rotated", rotated, s.head_dim));
  }
  TAILOR_TRY(const std::int64_t window, r.whole_or({"sliding_window"}, kMostPositions, 0));
  Metadata m(c);
  m.u32("context_length", c.context);
  m.u32("rope.scaling.original_context_length", original);
  m.u32("embedding_length", s.hidden);
  m.u32("feed_forward_length", s.feed_forward);
  m.u32("block_count", s.layers);
  m.u32("attention.head_count", s.heads);
  m.u32("attention.head_count_kv", s.kv_heads);
  m.f32("attention.layer_norm_rms_epsilon", eps);
  m.u32("rope.dimension_count", rotated);
  m.f32("rope.freq_base", rope.theta);
  m.u32("attention.sliding_window", window);
  if (rope.type == "default") return {};
  if (rope.type != "longrope" && rope.type != "yarn") {  // Phi-3's first files say yarn and mean the same
    return r.bad(fmt::format("the rotary embedding is scaled as '{}', which is not supported for model type '{}'",
                             rope.type, c.model_type));
  }
  return set_longrope(r, rope, original, rotated / 2, m, c);
}

Status read_gpt2(const Reader& r, DecoderConfig& c) {
  DecoderSizes& s = c.sizes;
  TAILOR_CHECK(read_common(r, c));
  TAILOR_TRY(s.feed_forward, r.whole_or({"n_inner"}, kMostInner, 4 * s.hidden));
  TAILOR_TRY(s.positions, r.whole({"n_positions", "n_ctx"}, kMostPositions));
  c.context = s.positions;
  s.tied_output = r.flag("tie_word_embeddings", true);
  TAILOR_CHECK(r.activation("activation_function", {"gelu_new", "gelu", "gelu_fast", "gelu_pytorch_tanh"}));
  TAILOR_CHECK(r.must_be("scale_attn_weights", true, true));
  TAILOR_CHECK(r.must_be("scale_attn_by_inverse_layer_idx", false, false));
  TAILOR_CHECK(r.must_be("add_cross_attention", false, false));
  TAILOR_TRY(const double eps, r.number_or("layer_norm_epsilon", 1e-5, 0, 0.1));
  Metadata m(c);
  m.u32("block_count", s.layers);
  m.u32("context_length", c.context);
  m.u32("embedding_length", s.hidden);
  m.u32("feed_forward_length", s.feed_forward);
  m.u32("attention.head_count", s.heads);
  m.f32("attention.layer_norm_epsilon", eps);
  return {};
}

Status read_gpt_neox(const Reader& r, DecoderConfig& c) {
  DecoderSizes& s = c.sizes;
  TAILOR_CHECK(read_common(r, c));
  TAILOR_TRY(s.feed_forward, r.whole({"intermediate_size"}, kMostInner));
  TAILOR_TRY(c.context, r.whole({"max_position_embeddings"}, kMostPositions));
  s.tied_output = r.flag("tie_word_embeddings", false);
  TAILOR_CHECK(r.activation("hidden_act", {"gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"}));
  TAILOR_CHECK(r.must_be("attention_bias", true, true));
  TAILOR_TRY(const double eps, r.number_or("layer_norm_eps", 1e-5, 0, 0.1));
  TAILOR_TRY(Rope rope, read_rope(r, 1e4));
  if (rope.type != "default") {
    return r.bad(fmt::format("the rotary embedding is scaled as '{}', which is not supported for model type '{}'",
                             rope.type, c.model_type));
  }
  const bool said = r.find("rotary_pct") != nullptr || r.find("partial_rotary_factor") != nullptr ||
                    rope.parameters.contains("partial_rotary_factor");
  if (!said) rope.partial = 0.25;  // GPTNeoXConfig's own
  const auto rotated = static_cast<std::int64_t>(rope.partial * static_cast<double>(s.head_dim));
  if (rotated < 2 || rotated % 2 != 0) {
    return r.bad(fmt::format("{} of the {} values of a head are rotated", rotated, s.head_dim));
  }
  Metadata m(c);
  m.u32("context_length", c.context);
  m.u32("embedding_length", s.hidden);
  m.u32("block_count", s.layers);
  m.u32("feed_forward_length", s.feed_forward);
  m.u32("rope.dimension_count", rotated);
  m.u32("attention.head_count", s.heads);
  m.flag("use_parallel_residual", r.flag("use_parallel_residual", true));
  m.f32("attention.layer_norm_epsilon", eps);
  m.f32("rope.freq_base", rope.theta);
  return {};
}

Status read_falcon(const Reader& r, DecoderConfig& c) {
  DecoderSizes& s = c.sizes;
  TAILOR_CHECK(read_common(r, c));
  TAILOR_TRY(s.feed_forward, r.whole_or({"ffn_hidden_size"}, kMostInner, 4 * s.hidden));
  TAILOR_TRY(c.context, r.whole_or({"max_position_embeddings"}, kMostPositions, 2048));
  s.tied_output = r.flag("tie_word_embeddings", true);
  const bool grouped = r.flag("new_decoder_architecture", false);
  TAILOR_CHECK(r.must_be("alibi", false, false));
  TAILOR_CHECK(r.must_be("bias", false, false));
  if (!grouped) TAILOR_CHECK(r.must_be("parallel_attn", true, true));
  TAILOR_CHECK(r.activation("activation", {"gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"}));
  if (grouped || !r.flag("multi_query", true)) {
    TAILOR_TRY(s.kv_heads, r.whole_or({"num_kv_heads", "n_head_kv"}, kMostHeads, s.heads));
    if (!grouped) s.kv_heads = s.heads;
  } else {
    s.kv_heads = 1;
  }
  TAILOR_CHECK(check_kv_heads(r, s));
  TAILOR_TRY(const std::int64_t norms, r.whole_or({"num_ln_in_parallel_attn"}, 2, grouped ? 2 : 1));
  s.two_norms = grouped && norms == 2;
  TAILOR_TRY(const double eps, r.number_or("layer_norm_epsilon", 1e-5, 0, 0.1));
  TAILOR_TRY(const Rope rope, read_rope(r, 1e4));
  if (rope.type != "default") {
    return r.bad(fmt::format("the rotary embedding is scaled as '{}', which is not supported for model type '{}'",
                             rope.type, c.model_type));
  }
  Metadata m(c);
  m.u32("context_length", c.context);
  m.text("tensor_data_layout", "jploski");
  m.u32("embedding_length", s.hidden);
  m.u32("feed_forward_length", s.feed_forward);
  m.u32("block_count", s.layers);
  m.u32("attention.head_count", s.heads);
  m.u32("attention.head_count_kv", s.kv_heads);
  m.f32("attention.layer_norm_epsilon", eps);
  m.f32("rope.freq_base", rope.theta);
  return {};
}

Status read_bloom(const Reader& r, DecoderConfig& c) {
  DecoderSizes& s = c.sizes;
  TAILOR_CHECK(read_common(r, c));
  s.feed_forward = 4 * s.hidden;
  TAILOR_TRY(c.context, r.whole_or({"seq_length"}, kMostPositions, 2048));  // what BLOOM was trained with
  s.tied_output = r.flag("tie_word_embeddings", true);
  TAILOR_CHECK(r.must_be("apply_residual_connection_post_layernorm", false, false));
  TAILOR_TRY(const double eps, r.number_or("layer_norm_epsilon", 1e-5, 0, 0.1));
  Metadata m(c);
  m.u32("context_length", c.context);
  m.u32("embedding_length", s.hidden);
  m.u32("feed_forward_length", s.feed_forward);
  m.u32("block_count", s.layers);
  m.u32("attention.head_count", s.heads);
  m.u32("attention.head_count_kv", s.heads);
  m.f32("attention.layer_norm_epsilon", eps);
  return {};
}

Status read_mpt(const Reader& r, DecoderConfig& c) {
  DecoderSizes& s = c.sizes;
  TAILOR_CHECK(read_common(r, c));
  TAILOR_CHECK(r.must_be("no_bias", true, true));
  TAILOR_CHECK(r.must_be_absent("logit_scale"));
  TAILOR_TRY(const double expansion, r.number_or("expansion_ratio", 4, 4, 4));
  s.feed_forward = static_cast<std::int64_t>(expansion) * s.hidden;
  TAILOR_TRY(c.context, r.whole_or({"max_seq_len"}, kMostPositions, 2048));
  s.tied_output = r.flag("tie_word_embeddings", true);
  TAILOR_TRY(const double eps, r.number_or("layer_norm_epsilon", 1e-5, 0, 0.1));
  const Json* given = r.find("attn_config");
  if (given != nullptr && !given->is_object()) return r.bad("'attn_config' is not an object");
  const Reader attention(r.file(), given == nullptr ? Json::object() : *given);
  TAILOR_CHECK(attention.must_be("alibi", true, true));
  for (const char* key : {"qk_ln", "prefix_lm", "attn_uses_sequence_id", "qk_gn"}) {
    TAILOR_CHECK(attention.must_be(key, false, false));
  }
  TAILOR_CHECK(attention.must_be_absent("softmax_scale"));
  TAILOR_TRY(const std::int64_t kv_heads, attention.whole_or({"kv_n_heads"}, kMostHeads, s.heads));
  if (kv_heads != s.heads) return r.bad("'kv_n_heads' is not 'n_heads', which is not supported");
  TAILOR_TRY(const double clip, attention.number_or("clip_qkv", 0, 0, 1e6));
  TAILOR_TRY(const double most, attention.number_or("alibi_bias_max", 8, 1e-3, 1e3));
  Metadata m(c);
  m.u32("context_length", c.context);
  m.u32("embedding_length", s.hidden);
  m.u32("block_count", s.layers);
  m.u32("feed_forward_length", s.feed_forward);
  m.u32("attention.head_count", s.heads);
  m.f32("attention.layer_norm_epsilon", eps);
  if (clip > 0) m.f32("attention.clamp_kqv", clip);
  m.f32("attention.max_alibi_bias", most);
  return {};
}

Status check_kind(const Reader& r) {
  if (const Json* names = r.find("architectures"); names != nullptr && names->is_array() && !names->empty()) {
    const std::string name = (*names)[0].is_string() ? (*names)[0].get<std::string>() : "";
    const bool known = name.ends_with("ForCausalLM") || name.ends_with("LMHeadModel") || name.ends_with("Model");
    if (!known) return r.bad(fmt::format("the architecture is {}, expected a model that predicts tokens", name));
  }
  if (const Json* quantized = r.find("quantization_config")) {
    std::string method = "an unknown method";
    if (quantized->is_object() && quantized->contains("quant_method")) method = dump_json((*quantized)["quant_method"]);
    return r.bad(fmt::format("the weights are quantised ({}); give the model in f32, f16 or bf16", method));
  }
  for (const char* key : {"num_local_experts", "num_experts", "n_routed_experts"}) {
    if (r.find(key) != nullptr) return r.bad("the model is a mixture of experts, which is not supported");
  }
  for (const char* key : {"vision_config", "audio_config"}) {
    if (r.find(key) != nullptr) return r.bad("the model reads images or sound, which is not supported");
  }
  return {};
}

}  // namespace

bool is_decoder_directory(const fs::path& dir) {
  const auto json = read_json(dir / "config.json");
  if (!json || !json->is_object()) return false;
  const auto type = json->find("model_type");
  return type != json->end() && type->is_string() && family_of_model_type(type->get<std::string>());
}

Result<DecoderConfig> read_decoder_config(const fs::path& dir) {
  const fs::path file = dir / "config.json";
  TAILOR_TRY(Json json, read_json(file));
  if (!json.is_object()) return cannot_import(file, "not a JSON object");
  const Reader r(file, std::move(json));
  DecoderConfig c;
  c.model_type = r.text("model_type", "");
  const auto family = family_of_model_type(c.model_type);
  if (!family) return r.bad(fmt::format("the model type is '{}', which cannot be imported", c.model_type));
  c.sizes.family = *family;
  TAILOR_CHECK(check_kind(r));
  Status read;
  switch (*family) {
    case DecoderFamily::kPhi3:
      read = read_phi3(r, c);
      break;
    case DecoderFamily::kGpt2:
      read = read_gpt2(r, c);
      break;
    case DecoderFamily::kGptNeoX:
      read = read_gpt_neox(r, c);
      break;
    case DecoderFamily::kFalcon:
      read = read_falcon(r, c);
      break;
    case DecoderFamily::kBloom:
      read = read_bloom(r, c);
      break;
    case DecoderFamily::kMpt:
      read = read_mpt(r, c);
      break;
    default:
      read = read_llama_like(r, c);
  }
  if (!read) return read.error();
  if (c.sizes.head_dim % 2 != 0)
    return r.bad(fmt::format("a head has {} values, expected an even number", c.sizes.head_dim));
  return c;
}

}  // namespace tailor
