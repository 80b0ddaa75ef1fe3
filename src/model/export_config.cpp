#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "model/decoder_file.h"
#include "model/export_hugging_face.h"

namespace tailor {
namespace {

/// Class and model type by family; a llama file may also have been a Mistral, which computes the same.
struct Names {
  DecoderFamily family;
  const char *model_type, *model_class;
};
constexpr std::array<Names, 11> kNames = {{
    {DecoderFamily::kLlama, "llama", "LlamaForCausalLM"},
    {DecoderFamily::kQwen2, "qwen2", "Qwen2ForCausalLM"},
    {DecoderFamily::kQwen3, "qwen3", "Qwen3ForCausalLM"},
    {DecoderFamily::kGemma2, "gemma2", "Gemma2ForCausalLM"},
    {DecoderFamily::kGemma3, "gemma3_text", "Gemma3ForCausalLM"},
    {DecoderFamily::kPhi3, "phi3", "Phi3ForCausalLM"},
    {DecoderFamily::kGpt2, "gpt2", "GPT2LMHeadModel"},
    {DecoderFamily::kGptNeoX, "gpt_neox", "GPTNeoXForCausalLM"},
    {DecoderFamily::kFalcon, "falcon", "FalconForCausalLM"},
    {DecoderFamily::kBloom, "bloom", "BloomForCausalLM"},
    {DecoderFamily::kMpt, "mpt", "MptForCausalLM"},
}};

class Metadata {
 public:
  Metadata(const GgufFile& file, DecoderFamily family) : file_(file), prefix_(gguf_architecture(family)) {}
  const GgufValue* find(const char* key) const { return file_.find(prefix_ + "." + key); }
  /// As a decimal number that reads back to the same f32.
  Json number(const char* key, double otherwise) const {
    const GgufValue* value = find(key);
    const double x = value == nullptr ? otherwise : value->as_number().value_or(otherwise);
    return std::strtod(fmt::format("{}", static_cast<float>(x)).c_str(), nullptr);
  }
  std::int64_t whole(const char* key, std::int64_t otherwise) const {
    const GgufValue* value = find(key);
    return value == nullptr ? otherwise : value->as_integer().value_or(otherwise);
  }
  std::string text(const char* key) const {
    const GgufValue* value = find(key);
    return value != nullptr && value->as_string() ? std::string(*value->as_string()) : std::string();
  }
  const GgufFile& file() const { return file_; }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

/// The divisors of Llama 3.1's scaling; see import_decoder_config.cpp.
bool are_llama3_factors(const std::vector<float>& factors, double base, double factor) {
  constexpr double kLength = 8192, kLow = 1, kHigh = 4;
  const auto count = static_cast<double>(factors.size());
  for (std::size_t i = 0; i < factors.size(); ++i) {
    const double wave = 2 * std::numbers::pi * std::pow(base, static_cast<double>(i) / count);
    const double smooth = (kLength / wave - kLow) / (kHigh - kLow);
    const double expected = wave > kLength / kLow    ? factor
                            : wave < kLength / kHigh ? 1
                                                     : 1 / ((1 - smooth) / factor + smooth);
    if (std::abs(factors[i] - expected) > 1e-3 * expected) return false;
  }
  return true;
}

Result<Json> llama3_scaling(const Metadata& m, double base) {
  TAILOR_TRY(const std::vector<float> factors, m.file().tensor_f32("rope_freqs.weight"));
  for (const double factor : {8.0, 16.0, 32.0}) {
    if (are_llama3_factors(factors, base, factor)) {
      return Json{{"rope_type", "llama3"},
                  {"factor", factor},
                  {"low_freq_factor", 1.0},
                  {"high_freq_factor", 4.0},
                  {"original_max_position_embeddings", 8192}};
    }
  }
  return Error{
      ErrorCode::kInvalidArgument,
      fmt::format("{}: the factors in 'rope_freqs.weight' are not those of a Llama 3 model", m.file().path().string()),
      "import the model from its Hugging Face directory: the file then keeps config.json"};
}

constexpr const char *kLongFactors = "rope_factors_long.weight", *kShortFactors = "rope_factors_short.weight";

/// The scale of attention is left out where it is what the contexts say: older transformers take no other key.
Result<Json> longrope_scaling(const Metadata& m) {
  TAILOR_TRY(const std::vector<float> longer, m.file().tensor_f32(kLongFactors));
  TAILOR_TRY(const std::vector<float> shorter, m.file().tensor_f32(kShortFactors));
  Json scaling{{"type", "longrope"}, {"long_factor", longer}, {"short_factor", shorter}};
  const auto context = static_cast<double>(m.whole("context_length", 0));
  const auto original =
      static_cast<double>(m.whole("rope.scaling.original_context_length", m.whole("context_length", 0)));
  const double growth = context / original;
  const double usual = growth > 1 ? std::sqrt(1 + std::log(growth) / std::log(original)) : 1;
  const Json stated = m.number("rope.scaling.attn_factor", 1);
  if (stated.get<float>() != static_cast<float>(usual)) scaling["attention_factor"] = stated;
  return scaling;
}

Status set_rope(const Metadata& m, const DecoderSizes& s, Json& config) {
  const Json base = m.number("rope.freq_base", 10'000);
  config["rope_theta"] = base;
  const std::string type = m.text("rope.scaling.type");
  Json scaling;
  if (type == "linear") scaling = {{"rope_type", "linear"}, {"factor", m.number("rope.scaling.factor", 1)}};
  if (type == "yarn") {
    scaling = {{"rope_type", "yarn"},
               {"factor", m.number("rope.scaling.factor", 1)},
               {"original_max_position_embeddings",
                m.whole("rope.scaling.original_context_length", m.whole("context_length", 0))}};
    if (m.find("rope.scaling.attn_factor") != nullptr) {
      const double factor = m.number("rope.scaling.factor", 1).get<double>();
      const double times = m.number("rope.scaling.attn_factor", 1).get<double>();
      scaling["attention_factor"] = times * (factor <= 1 ? 1 : 1 + 0.1 * std::log(factor));
    }
  }
  if (s.family == DecoderFamily::kLlama && m.file().tensor(kLongFactors) != nullptr) {
    TAILOR_TRY(scaling, longrope_scaling(m));
    scaling["original_max_position_embeddings"] = m.whole("rope.scaling.original_context_length", 0);
  }
  if (s.family == DecoderFamily::kLlama && m.file().tensor("rope_freqs.weight") != nullptr) {
    TAILOR_TRY(scaling, llama3_scaling(m, base.get<double>()));
  }
  if (s.family == DecoderFamily::kGemma3) {
    config.erase("rope_theta");
    Json whole = scaling.is_null() ? Json{{"rope_type", "default"}} : scaling;
    whole["rope_theta"] = base;
    config["rope_parameters"] = {
        {"full_attention", whole},
        {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", m.number("rope.freq_base_swa", 10'000)}}}};
    return {};
  }
  config["rope_scaling"] = scaling;
  return {};
}

Status set_llama_like(const Metadata& m, const DecoderSizes& s, Json& config) {
  const bool gemma = s.family == DecoderFamily::kGemma2 || s.family == DecoderFamily::kGemma3;
  config["intermediate_size"] = s.feed_forward;
  config["num_key_value_heads"] = s.kv_heads;
  if (s.family != DecoderFamily::kQwen2) config["head_dim"] = s.head_dim;
  config["rms_norm_eps"] = m.number("attention.layer_norm_rms_epsilon", 1e-6);
  config["max_position_embeddings"] = m.whole("context_length", 2048);
  if (s.family == DecoderFamily::kLlama) {
    config["attention_bias"] = s.attention_bias;
    config["mlp_bias"] = s.feed_forward_bias;
  } else {
    config["attention_bias"] = false;
  }
  config[gemma ? "hidden_activation" : "hidden_act"] = gemma ? "gelu_pytorch_tanh" : "silu";
  if (gemma) {
    const std::int64_t largest = s.family == DecoderFamily::kGemma2 ? 46 : 62;
    config["query_pre_attn_scalar"] = s.layers == largest ? s.hidden / s.heads : s.head_dim;
    const LayerWindows usual = usual_windows(s.family);
    const LayerWindows windows{m.whole("attention.sliding_window", usual.tokens),
                               m.whole("attention.sliding_window_pattern", usual.every)};
    config["sliding_window"] = windows.tokens > 0 ? windows.tokens : 4096;
    Json types = Json::array();
    for (std::int64_t i = 0; i < s.layers; ++i)
      types.push_back(windows.has(i) ? "sliding_attention" : "full_attention");
    config["layer_types"] = std::move(types);
    for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"}) {
      if (m.find(key) != nullptr) config[key] = m.number(key, 0);
    }
  }
  return set_rope(m, s, config);
}

Status set_phi3(const Metadata& m, const DecoderSizes& s, Json& config) {
  config["intermediate_size"] = s.feed_forward;
  config["num_key_value_heads"] = s.kv_heads;
  config["rms_norm_eps"] = m.number("attention.layer_norm_rms_epsilon", 1e-5);
  config["hidden_act"] = "silu";
  const std::int64_t context = m.whole("context_length", 4096);
  config["max_position_embeddings"] = context;
  config["original_max_position_embeddings"] = m.whole("rope.scaling.original_context_length", context);
  const std::int64_t window = m.whole("attention.sliding_window", 0);
  config["sliding_window"] = window > 0 ? Json(window) : Json();
  config["rope_theta"] = m.number("rope.freq_base", 10'000);
  const std::int64_t rotated = m.whole("rope.dimension_count", s.head_dim);
  config["partial_rotary_factor"] = static_cast<double>(rotated) / static_cast<double>(s.head_dim);
  config["rope_scaling"] = nullptr;
  if (m.file().tensor(kLongFactors) == nullptr) return {};
  TAILOR_TRY(config["rope_scaling"], longrope_scaling(m));
  return {};
}

}  // namespace

Result<Json> decoder_config_json(const GgufFile& file) {
  TAILOR_TRY(const DecoderSizes s, decoder_sizes(file));
  const Metadata m(file, s.family);
  Json config = Json::object();
  for (const Names& n : kNames) {
    if (n.family != s.family) continue;
    config["architectures"] = {n.model_class};
    config["model_type"] = n.model_type;
  }
  config["vocab_size"] = s.vocabulary;
  config[s.family == DecoderFamily::kMpt    ? "d_model"
         : s.family == DecoderFamily::kGpt2 ? "n_embd"
                                            : "hidden_size"] = s.hidden;
  const bool short_names = s.family == DecoderFamily::kGpt2 || s.family == DecoderFamily::kBloom;
  const bool mpt = s.family == DecoderFamily::kMpt;
  config[mpt ? "n_layers" : short_names ? "n_layer" : "num_hidden_layers"] = s.layers;
  config[mpt ? "n_heads" : short_names ? "n_head" : "num_attention_heads"] = s.heads;
  config["tie_word_embeddings"] = s.tied_output;
  for (const char* role : {"bos", "eos", "padding"}) {
    const GgufValue* id = file.find(fmt::format("tokenizer.ggml.{}_token_id", role));
    const std::string key = fmt::format("{}_token_id", std::string_view(role) == "padding" ? "pad" : role);
    config[key] = id != nullptr && id->as_integer() ? Json(*id->as_integer()) : Json();
  }
  const Json eps = m.number("attention.layer_norm_epsilon", 1e-5);
  switch (s.family) {
    case DecoderFamily::kPhi3:
      TAILOR_CHECK(set_phi3(m, s, config));
      break;
    case DecoderFamily::kGpt2:
      config["n_positions"] = s.positions;
      config["n_inner"] = s.feed_forward;
      config["activation_function"] = "gelu_new";
      config["layer_norm_epsilon"] = eps;
      break;
    case DecoderFamily::kGptNeoX: {
      config["intermediate_size"] = s.feed_forward;
      config["max_position_embeddings"] = m.whole("context_length", 2048);
      config["hidden_act"] = "gelu";
      config["layer_norm_eps"] = eps;
      config["attention_bias"] = true;
      const GgufValue* parallel = m.find("use_parallel_residual");
      config["use_parallel_residual"] = parallel == nullptr || parallel->as_bool().value_or(true);
      config["rotary_emb_base"] = m.number("rope.freq_base", 10'000);
      config["rotary_pct"] =
          static_cast<double>(m.whole("rope.dimension_count", s.head_dim)) / static_cast<double>(s.head_dim);
      break;
    }
    case DecoderFamily::kFalcon:
      // The grouped layout says the same of a model with one group.
      config["new_decoder_architecture"] = s.two_norms || s.kv_heads > 1;
      config["multi_query"] = s.kv_heads == 1;
      config["num_kv_heads"] = s.kv_heads;
      config["num_ln_in_parallel_attn"] = s.two_norms ? 2 : 1;
      config["ffn_hidden_size"] = s.feed_forward;
      config["max_position_embeddings"] = m.whole("context_length", 2048);
      config["parallel_attn"] = true;
      config["bias"] = config["alibi"] = false;
      config["activation"] = "gelu";
      config["layer_norm_epsilon"] = eps;
      config["rope_theta"] = m.number("rope.freq_base", 10'000);
      break;
    case DecoderFamily::kBloom:
      config["seq_length"] = m.whole("context_length", 2048);
      config["layer_norm_epsilon"] = eps;
      break;
    case DecoderFamily::kMpt:
      config["max_seq_len"] = m.whole("context_length", 2048);
      config["expansion_ratio"] = s.feed_forward / s.hidden;
      config["no_bias"] = true;
      config["layer_norm_epsilon"] = eps;
      config["attn_config"] = {{"alibi", true}};
      config["attn_config"]["alibi_bias_max"] =  // transformers wants a whole number
          std::llround(m.number("attention.max_alibi_bias", 8).get<double>());
      config["attn_config"]["clip_qkv"] =
          m.find("attention.clamp_kqv") != nullptr ? m.number("attention.clamp_kqv", 0) : Json();
      break;
    default:
      TAILOR_CHECK(set_llama_like(m, s, config));
  }
  return config;
}

}  // namespace tailor
