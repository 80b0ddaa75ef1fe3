#include <gtest/gtest.h>
#include <llama.h>

#include <cmath>
#include <map>

#include "core/decoder_layout.h"
#include "model/catalogue.h"
#include "model/gguf_file.h"
#include "model/import.h"
#include "model/import_decoder_config.h"
#include "model/llama_runtime.h"
#include "model/test_decoder_family.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::TinyDecoder;

class ImportDecoder : public ::testing::Test {
 protected:
  Status import(const TinyDecoder& model, ImportType type = ImportType::kF32, const std::string& stored = "F32",
                bool shards = false) {
    fs::remove_all(in_);
    model.write(in_, stored, shards);
    return import_hugging_face(in_, out_, {.type = type});
  }
  GgufFile imported(const TinyDecoder& model, ImportType type = ImportType::kF32, const std::string& stored = "F32",
                    bool shards = false) {
    import(model, type, stored, shards).value();
    return GgufFile::open(out_).value();
  }
  void refuses(const TinyDecoder& model, const std::string& part, ErrorCode code = ErrorCode::kInvalidArgument) {
    fs::remove(out_);
    expect_error(import(model), code, part);
    EXPECT_FALSE(fs::exists(out_));
  }
  TemporaryDirectory dir_{"import-decoder"};
  fs::path in_ = dir_.path() / "m", out_ = dir_.path() / "m.gguf";
};

/// Logits after every token, from llama.cpp in f32 without flash attention.
std::vector<float> llama_logits(const fs::path& gguf, const std::vector<std::int32_t>& tokens) {
  const LlamaModelPtr model = load_llama_model(gguf).value();
  llama_context_params params = llama_context_default_params();
  params.n_ctx = 64;
  params.type_k = params.type_v = GGML_TYPE_F32;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.n_threads = params.n_threads_batch = 1;
  llama_context* context = llama_init_from_model(model.get(), params);
  llama_batch batch = llama_batch_init(static_cast<std::int32_t>(tokens.size()), 0, 1);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    batch.token[i] = tokens[i];
    batch.pos[i] = static_cast<llama_pos>(i);
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = 1;
  }
  batch.n_tokens = static_cast<std::int32_t>(tokens.size());
  EXPECT_EQ(llama_decode(context, batch), 0);
  const std::int32_t width = llama_vocab_n_tokens(llama_model_get_vocab(model.get()));
  std::vector<float> logits;
  for (std::int32_t i = 0; i < batch.n_tokens; ++i) {
    const float* row = llama_get_logits_ith(context, i);
    logits.insert(logits.end(), row, row + width);
  }
  llama_batch_free(batch);
  llama_free(context);
  return logits;
}

TEST_F(ImportDecoder, LogitsEqualTransformers) {
  for (const std::string& name : testing::tiny_decoders()) {
    const TinyDecoder model(name);
    import(model).value();
    const std::vector<float> logits = llama_logits(out_, model.reference["tokens"].get<std::vector<std::int32_t>>());
    const auto expected = model.reference["logits"].get<std::vector<float>>();
    ASSERT_EQ(logits.size(), expected.size()) << name;
    float worst = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) worst = std::max(worst, std::abs(logits[i] - expected[i]));
    // llama.cpp reads GELU from a table of f16 values; the other families agree to f32's rounding.
    const std::string type = model.files.at("config.json")["model_type"];
    const bool exact = type == "llama" || type == "mistral" || type == "phi3" || type.starts_with("qwen");
    EXPECT_LT(worst, exact ? 1e-5f : 4e-3f) << name;
  }
}

/// The table names exactly the tensors that transformers writes, with their shapes.
TEST_F(ImportDecoder, TensorsAreThoseOfTransformers) {
  for (const std::string& name : testing::tiny_decoders()) {
    const TinyDecoder model(name);
    model.write(in_);
    const DecoderConfig config = read_decoder_config(in_).value();
    const auto tensors = decoder_tensors(config.sizes);
    EXPECT_EQ(tensors.size(), model.tensors.size()) << name;
    for (const DecoderTensor& t : tensors) {
      const auto it = model.tensors.find(t.hugging_face);
      ASSERT_NE(it, model.tensors.end()) << name << " " << t.hugging_face;
      EXPECT_EQ(it->second.shape, t.shape) << name << " " << t.hugging_face;
    }
  }
}

TEST_F(ImportDecoder, MetadataIsThatOfLlamasConverter) {
  const auto number = [](const GgufFile& file, const char* key) {
    return static_cast<float>(file.number(key).value());
  };
  {
    const GgufFile file = imported(TinyDecoder("llama"));
    EXPECT_EQ(file.architecture().value(), "llama");
    EXPECT_EQ(file.integer("llama.block_count").value(), 2);
    EXPECT_EQ(file.integer("llama.context_length").value(), 64);
    EXPECT_EQ(file.integer("llama.feed_forward_length").value(), 64);
    EXPECT_EQ(file.integer("llama.attention.head_count").value(), 4);
    EXPECT_EQ(file.integer("llama.attention.head_count_kv").value(), 2);
    EXPECT_EQ(file.integer("llama.rope.dimension_count").value(), 8);
    EXPECT_EQ(file.integer("llama.vocab_size").value(), 288);
    EXPECT_EQ(number(file, "llama.rope.freq_base"), 50000.0f);
    EXPECT_EQ(number(file, "llama.attention.layer_norm_rms_epsilon"), 1e-5f);
    EXPECT_EQ(file.integer("general.file_type").value(), 0);
    EXPECT_EQ(file.integer("tokenizer.ggml.bos_token_id").value(), 1);
    EXPECT_EQ(file.integer("tokenizer.ggml.eos_token_id").value(), 2);
    EXPECT_EQ(file.integer("tokenizer.ggml.padding_token_id").value(), 0);
    EXPECT_EQ(file.find("tokenizer.ggml.add_bos_token")->as_bool(), false);
    EXPECT_EQ(file.string("tokenizer.chat_template").value(), "{{ messages }}");
    EXPECT_EQ(file.string("tailor.source_model_type").value(), "llama");
    const auto tokens = file.find("tokenizer.ggml.tokens")->as_strings().value();
    EXPECT_EQ(tokens.size(), 288u);
    EXPECT_EQ(tokens[287], "[PAD287]");
  }
  {
    const GgufFile file = imported(TinyDecoder("llama_variant"));
    EXPECT_EQ(file.tensor("rope_freqs.weight")->shape, std::vector<std::uint64_t>{8});
    EXPECT_EQ(file.tensor("output.weight"), nullptr);
    EXPECT_NE(file.tensor("blk.1.attn_output.bias"), nullptr);
    EXPECT_EQ(file.integer("llama.attention.key_length").value(), 16);
  }
  {
    const GgufFile file = imported(TinyDecoder("mistral"));
    EXPECT_EQ(file.architecture().value(), "llama");
    EXPECT_EQ(file.string("llama.rope.scaling.type").value(), "linear");
    EXPECT_EQ(number(file, "llama.rope.scaling.factor"), 2.0f);
    EXPECT_EQ(file.string("tailor.source_model_type").value(), "mistral");
  }
  {
    const GgufFile file = imported(TinyDecoder("gemma2"));
    EXPECT_EQ(number(file, "gemma2.attn_logit_softcapping"), 2.0f);
    EXPECT_EQ(number(file, "gemma2.final_logit_softcapping"), 5.0f);
    EXPECT_EQ(file.integer("gemma2.attention.sliding_window").value(), 5);
    EXPECT_EQ(file.integer("gemma2.attention.value_length").value(), 16);
  }
  {
    const GgufFile file = imported(TinyDecoder("gemma3"));
    EXPECT_EQ(file.integer("gemma3.attention.sliding_window_pattern").value(), 2);
    EXPECT_EQ(number(file, "gemma3.rope.freq_base"), 1e6f);
    EXPECT_EQ(number(file, "gemma3.rope.freq_base_swa"), 1e4f);
    EXPECT_EQ(number(file, "gemma3.rope.scaling.factor"), 8.0f);
  }
  {
    const GgufFile file = imported(TinyDecoder("phi3_variant"));
    EXPECT_EQ(file.integer("phi3.rope.dimension_count").value(), 4);
    EXPECT_EQ(file.integer("phi3.rope.scaling.original_context_length").value(), 256);
    EXPECT_EQ(file.tensor_f32("rope_factors_long.weight").value(), (std::vector<float>{2, 5}));
    EXPECT_EQ(file.tensor_f32("rope_factors_short.weight").value(), (std::vector<float>{1, 1.25f}));
    EXPECT_NEAR(number(file, "phi3.rope.scaling.attn_factor"), 1.1180340f, 1e-6f);
  }
  {
    const GgufFile file = imported(TinyDecoder("gptneox"));
    EXPECT_EQ(file.integer("gptneox.rope.dimension_count").value(), 4);
    EXPECT_EQ(file.find("gptneox.use_parallel_residual")->as_bool(), true);
    EXPECT_EQ(imported(TinyDecoder("gptneox_variant")).find("gptneox.use_parallel_residual")->as_bool(), false);
  }
  {
    const GgufFile file = imported(TinyDecoder("falcon_new"));
    EXPECT_EQ(file.integer("falcon.attention.head_count_kv").value(), 2);
    EXPECT_EQ(file.string("falcon.tensor_data_layout").value(), "jploski");
    EXPECT_NE(file.tensor("blk.0.attn_norm_2.bias"), nullptr);
    EXPECT_EQ(imported(TinyDecoder("falcon")).integer("falcon.attention.head_count_kv").value(), 1);
  }
  EXPECT_EQ(number(imported(TinyDecoder("mpt")), "mpt.attention.max_alibi_bias"), 8.0f);
  EXPECT_EQ(imported(TinyDecoder("bloom")).integer("bloom.context_length").value(), 2048);
  EXPECT_EQ(imported(TinyDecoder("gpt2")).tensor("position_embd.weight")->type, TensorType::kF32);
}

TEST_F(ImportDecoder, RotaryScalingInEitherSpelling) {
  const auto values = [&](const TinyDecoder& model) {
    std::map<std::string, std::string> out;
    const GgufFile file = imported(model);
    for (const auto& [key, value] : file.values()) {
      if (!key.starts_with("tailor.") && !key.starts_with("tokenizer.")) out[key] = value.encoded();
    }
    for (const char* name : {"rope_factors_long.weight", "rope_factors_short.weight"}) {
      if (const GgufTensor* t = file.tensor(name)) out[name] = std::string(t->bytes);
    }
    return out;
  };
  for (const char* name : {"qwen3_variant", "llama_yarn", "llama_longrope", "phi3_variant", "mistral"}) {
    TinyDecoder model(name);
    const auto now = values(model);
    Json& config = model.files["config.json"];
    Json scaling = config["rope_parameters"];
    config.erase("rope_parameters");
    config["rope_theta"] = scaling["rope_theta"];
    if (scaling.contains("partial_rotary_factor")) config["partial_rotary_factor"] = scaling["partial_rotary_factor"];
    scaling["type"] = scaling["rope_type"];
    for (const char* key : {"rope_theta", "rope_type", "partial_rotary_factor"}) scaling.erase(key);
    const bool phi = std::string(name) == "phi3_variant";
    for (const char* type : phi ? std::vector<const char*>{"longrope", "su", "yarn"} : std::vector<const char*>{""}) {
      if (*type != '\0') scaling["type"] = type;
      config["rope_scaling"] = scaling;
      EXPECT_EQ(values(model), now) << name << " " << type;
    }
  }
}

TEST_F(ImportDecoder, ScaleOfAttentionByYarn) {
  const auto factor_of = [&](const Json& more) {
    TinyDecoder model("llama_yarn");
    Json& rope = model.files["config.json"]["rope_parameters"];
    rope.erase("attention_factor");
    rope.update(more);
    const GgufFile file = imported(model);
    const GgufValue* value = file.find("llama.rope.scaling.attn_factor");
    return value == nullptr ? 1.0 : value->as_number().value();
  };
  const double usual = 1 + 0.1 * std::log(4.0);
  EXPECT_EQ(factor_of(Json::object()), 1);
  EXPECT_EQ(factor_of({{"beta_fast", 32.0}, {"beta_slow", 1}, {"truncate", true}, {"attention_factor", nullptr}}), 1);
  EXPECT_NEAR(factor_of({{"attention_factor", 0.8}}), 0.8 / usual, 1e-6);
  EXPECT_NEAR(factor_of({{"mscale", 0.5}, {"mscale_all_dim", 1.0}}), (1 + 0.05 * std::log(4.0)) / usual / usual, 1e-6);
  EXPECT_EQ(factor_of({{"mscale", 0.5}}), 1);  // both or none, as in transformers
}

TEST_F(ImportDecoder, EveryTypeAndShards) {
  const TinyDecoder model("llama");
  const GgufFile whole = imported(model);
  const std::string expected(whole.tensor("blk.1.attn_k.weight")->bytes);
  EXPECT_EQ(imported(model, ImportType::kF32, "F32", true).tensor("blk.1.attn_k.weight")->bytes, expected);
  const std::tuple<ImportType, const char*, TensorType, int> cases[] = {
      {ImportType::kF16, "F32", TensorType::kF16, 1},       {ImportType::kBf16, "F32", TensorType::kBF16, 32},
      {ImportType::kQ8_0, "F32", TensorType::kQ8_0, 7},     {ImportType::kSource, "F16", TensorType::kF16, 1},
      {ImportType::kSource, "BF16", TensorType::kBF16, 32}, {ImportType::kSource, "F32", TensorType::kF32, 0}};
  for (const auto& [type, stored, result, number] : cases) {
    const GgufFile file = imported(model, type, stored);
    EXPECT_EQ(file.tensor("blk.1.ffn_down.weight")->type, result);
    EXPECT_EQ(file.tensor("blk.1.attn_norm.weight")->type, TensorType::kF32);
    EXPECT_EQ(file.integer("general.file_type").value(), number);
    EXPECT_TRUE(load_llama_model(out_));
  }
  const ModelInfo info = describe_model(in_).value();
  EXPECT_EQ(info.kind, ModelKind::kDecoder);
  EXPECT_EQ(info.architecture, "llama");
  EXPECT_EQ(info.vocabulary, 288u);
  EXPECT_EQ(describe_model(out_).value().parameters, info.parameters);
  const auto cached = import_cached(in_, dir_.path() / "cache", {.type = ImportType::kSource}).value();
  EXPECT_TRUE(cached.filename().string().ends_with("-source.gguf"));
}

TEST_F(ImportDecoder, BareModelsHaveNoPrefix) {
  for (const char* name : {"gpt2", "bloom"}) {
    TinyDecoder model(name);
    std::map<std::string, TinyDecoder::Tensor> bare;
    for (auto& [tensor, t] : model.tensors) bare[tensor.substr(std::string("transformer.").size())] = std::move(t);
    model.tensors = std::move(bare);
    model.tensors["h.0.attn.bias"] = {{1}, {1.0f}};
    model.tensors["lm_head.weight"] = model.tensors.begin()->second;  // tied: not read
    EXPECT_TRUE(import(model)) << name;
  }
}

TEST_F(ImportDecoder, RefusesWhatIsNotSupported) {
  const auto with = [](const char* name, const char* key, const Json& value) {
    TinyDecoder model(name);
    model.files["config.json"][key] = value;
    return model;
  };
  refuses(with("llama", "quantization_config", {{"quant_method", "gptq"}}), "the weights are quantised (\"gptq\")");
  refuses(with("llama", "num_local_experts", 8), "mixture of experts");
  refuses(with("llama", "vision_config", Json::object()), "images or sound");
  refuses(with("llama", "architectures", {"LlamaForSequenceClassification"}), "expected a model that predicts tokens");
  refuses(with("llama", "model_type", "mamba"), "cannot be imported");
  refuses(with("llama", "hidden_act", "relu"), "'hidden_act' is 'relu', expected 'silu'");
  refuses(with("llama", "rope_parameters", {{"rope_type", "dynamic"}}), "scaled as 'dynamic'");
  const Json yarn = TinyDecoder("llama_yarn").files["config.json"]["rope_parameters"];
  const std::pair<const char*, Json> unusual[] = {{"beta_fast", 16}, {"beta_slow", 2}, {"truncate", false}};
  for (const auto& [key, value] : unusual) {
    Json rope = yarn;
    rope[key] = value;
    refuses(with("llama_yarn", "rope_parameters", rope), std::string("'") + key + "' is");
  }
  refuses(with("gemma3", "rope_parameters", yarn), "scaled as 'yarn'");
  refuses(with("llama", "num_key_value_heads", 3), "cannot share 3 key-value heads");
  refuses(with("llama", "num_hidden_layers", 0), "'num_hidden_layers' is 0");
  refuses(with("llama", "num_hidden_layers", 1), "is not part of the model", ErrorCode::kCorruptData);
  refuses(with("llama", "num_hidden_layers", 3), "is missing", ErrorCode::kCorruptData);
  refuses(with("llama", "intermediate_size", 32), "has shape [64, 32], config.json needs [32, 32]",
          ErrorCode::kCorruptData);
  refuses(with("qwen2", "use_sliding_window", true), "'use_sliding_window' is true");
  refuses(with("gemma2", "query_pre_attn_scalar", 224), "'query_pre_attn_scalar' is 224, llama.cpp computes with 16");
  refuses(with("gemma3", "layer_types", {"full_attention", "sliding_attention"}), "does not repeat");
  refuses(with("phi3_variant", "rope_parameters", {{"rope_type", "longrope"}, {"partial_rotary_factor", 0.5}}),
          "'long_factor' is not a list of 2 numbers");
  refuses(with("gpt2", "scale_attn_by_inverse_layer_idx", true), "does not compute");
  refuses(with("falcon", "alibi", true), "'alibi' is true");
  refuses(with("falcon", "parallel_attn", false), "'parallel_attn' is false");
  refuses(with("mpt", "attn_config", {{"qk_ln", true}}), "'qk_ln' is true");
  refuses(with("bloom", "apply_residual_connection_post_layernorm", true), "does not compute");
}

}  // namespace
}  // namespace tailor
