#pragma once
/// For tests: the tiny models of tests/golden/decoder_family_golden.py, one of each family of decoders.

#include <gtest/gtest.h>

#include <cmath>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "core/decoder_layout.h"
#include "core/json.h"
#include "core/rng.h"
#include "tune/decoder_test_model.h"

namespace tailor::tune::decoder {

inline constexpr const char* kTinyFamilies[] = {
    "llama",   "llama_yarn", "llama_longrope", "mistral",         "qwen2",         "qwen3",
    "gemma2",  "gemma3",     "phi3",           "phi3_variant",    "qwen3_variant", "gpt2",
    "gptneox", "falcon",     "falcon_new",     "gptneox_variant", "bloom",         "mpt"};

/// The first of several keys that a config.json has.
template <typename T>
T of_config(const Json& config, std::initializer_list<const char*> keys, T fallback) {
  for (const char* key : keys) {
    if (config.contains(key) && !config[key].is_null()) return config[key].get<T>();
  }
  return fallback;
}

struct TinyFamily {
  Json golden;
  DecoderSizes sizes;
  std::vector<DecoderTensor> tensors;
  TestModel model;
};

inline void add_rope(const Json& config, TestModel& m) {
  Json rope = of_config<Json>(config, {"rope_parameters"}, Json::object());
  if (rope.contains("full_attention")) {
    m.numbers["rope.freq_base_swa"] = rope["sliding_attention"]["rope_theta"];
    rope = rope["full_attention"];
  }
  m.numbers["rope.freq_base"] = of_config<double>(rope, {"rope_theta"}, of_config<double>(config, {"rope_theta"}, 1e4));
  if (of_config<std::string>(rope, {"rope_type"}, "default") == "linear") {
    m.texts["rope.scaling.type"] = "linear";
    m.numbers["rope.scaling.factor"] = rope["factor"];
  }
  const auto kind = of_config<std::string>(rope, {"rope_type"}, "default");
  if (kind == "yarn" || kind == "longrope")
    m.numbers["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"];
  const double attention = of_config<double>(rope, {"attention_factor"}, 0);
  if (kind == "yarn") {
    const double factor = rope["factor"];
    m.texts["rope.scaling.type"] = "yarn";
    m.numbers["rope.scaling.factor"] = factor;
    if (attention > 0) m.numbers["rope.scaling.attn_factor"] = attention / (1 + 0.1 * std::log(factor));
  }
  if (kind == "longrope") {
    m.texts["rope.scaling.type"] = "longrope";
    const double original = rope["original_max_position_embeddings"];
    const double growth = static_cast<double>(m.context) / original;
    m.numbers["rope.scaling.attn_factor"] =
        attention > 0 ? attention : std::sqrt(1 + std::log(growth) / std::log(original));
    for (const char* name : {"short", "long"}) {
      const auto factors = rope[std::string(name) + "_factor"].get<std::vector<float>>();
      m.tensors.push_back(
          {"rope_factors_" + std::string(name) + ".weight", {static_cast<std::int64_t>(factors.size())}, factors});
    }
  }
  const double part = of_config<double>(rope, {"partial_rotary_factor"}, 1);
  m.numbers["rope.dimension_count"] = part * m.numbers.at("attention.key_length");
}

inline TinyFamily tiny_family(const std::string& name) {
  TinyFamily t;
  t.golden = golden(("decoder_family_" + name + ".json").c_str());
  const Json& c = t.golden["config"];
  DecoderSizes& s = t.sizes;
  s.family = family_of_model_type(c.at("model_type").get<std::string>()).value();
  s.vocabulary = c.at("vocab_size");
  s.hidden = of_config<std::int64_t>(c, {"hidden_size", "n_embd", "d_model"}, 0);
  s.layers = of_config<std::int64_t>(c, {"num_hidden_layers", "n_layer", "n_layers"}, 0);
  s.heads = of_config<std::int64_t>(c, {"num_attention_heads", "n_head", "n_heads"}, 0);
  s.kv_heads = of_config<std::int64_t>(c, {"num_key_value_heads", "num_kv_heads"}, s.heads);
  s.two_norms = c.value("new_decoder_architecture", false);
  if (s.family == DecoderFamily::kFalcon && !s.two_norms) s.kv_heads = c.value("multi_query", false) ? 1 : s.heads;
  s.head_dim = of_config<std::int64_t>(c, {"head_dim"}, s.hidden / s.heads);
  s.feed_forward = of_config<std::int64_t>(c, {"intermediate_size", "n_inner", "ffn_hidden_size"}, 4 * s.hidden);
  s.positions = of_config<std::int64_t>(c, {"max_position_embeddings", "n_positions", "max_seq_len"}, 64);
  s.attention_bias = c.value("attention_bias", false);
  s.feed_forward_bias = c.value("mlp_bias", false);

  std::map<std::string, std::vector<float>> values;
  std::uint64_t stream = 0;
  for (const Json& item : t.golden["tensors"]) {
    std::int64_t count = 1;
    for (const auto& n : item[1]) count *= n.get<std::int64_t>();
    Rng rng(t.golden["seed"].get<std::uint64_t>(), stream++);
    std::vector<float>& to = values[item[0].get<std::string>()];
    for (std::int64_t i = 0; i < count; ++i)
      to.push_back(static_cast<float>(item[3].get<double>() + item[2].get<double>() * rng.normal()));
  }
  s.tied_output = !values.contains("lm_head.weight") && !values.contains("embed_out.weight");
  t.tensors = decoder_tensors(s);

  TestModel& m = t.model;
  m.architecture = gguf_architecture(s.family);
  m.vocab = s.vocabulary;
  m.hidden = s.hidden;
  m.layers = s.layers;
  m.heads = s.heads;
  m.kv_heads = s.kv_heads;
  m.ffn = s.feed_forward;
  m.context = s.positions;
  m.eps = of_config<double>(c, {"rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps"}, 1e-5);
  m.numbers["attention.key_length"] = static_cast<double>(s.head_dim);
  m.numbers["attention.value_length"] = static_cast<double>(s.head_dim);
  add_rope(c, m);
  if (c.contains("use_parallel_residual")) m.numbers["use_parallel_residual"] = c["use_parallel_residual"] ? 1 : 0;
  if (m.architecture == "mpt") m.numbers["attention.max_alibi_bias"] = 8;
  if (m.architecture.starts_with("gemma")) {
    m.numbers["attention.sliding_window"] = c.at("sliding_window");
    m.numbers["attention.sliding_window_pattern"] = 2;
    m.numbers["final_logit_softcapping"] = of_config<double>(c, {"final_logit_softcapping"}, 0);
    m.numbers["attn_logit_softcapping"] = of_config<double>(c, {"attn_logit_softcapping"}, 0);
  }
  for (const DecoderTensor& tensor : t.tensors) {
    EXPECT_TRUE(values.contains(tensor.hugging_face)) << tensor.hugging_face;
    m.tensors.push_back({tensor.gguf, tensor.gguf_shape(), to_gguf(tensor, values.at(tensor.hugging_face))});
  }
  return t;
}

}  // namespace tailor::tune::decoder
