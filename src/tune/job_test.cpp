#include "tune/job.h"

#include <gtest/gtest.h>

#include "core/files.h"
#include "core/json.h"
#include "tune/encoder.h"
#include "tune/hf_names.h"
#include "tune/methods.h"
#include "tune/schedule.h"
#include "tune/weights.h"

namespace tailor::tune {
namespace {

Json example() {
  return {{"format", "tailor-tune-job"},          {"version", 1}, {"method", "lora"}, {"base", "model.gguf"},
          {"tokens", "/data/tokens.safetensors"}, {"out", "run"}};
}

std::string error_of(const Json& value) {
  const auto job = parse_job(value, "job.json", "/work");
  return job ? "" : to_string(job.error());
}

TEST(Job, TakesPathsRelativeToTheFileAndTheMethodsDefaults) {
  Json value = example();
  value["settings"] = {{"epochs", 2.5}, {"lora", {{"r", 8}, {"target_modules", {"query", "value"}}}}};
  const auto job = parse_job(value, "job.json", "/work");
  ASSERT_TRUE(job) << job.error().message;
  EXPECT_EQ(job->base, "/work/model.gguf");
  EXPECT_EQ(job->tokens, "/data/tokens.safetensors");
  EXPECT_EQ(job->settings.epochs, 2.5);
  EXPECT_EQ(job->settings.lora.r, 8);
  Settings defaults;
  find_method("lora")->set_defaults(defaults, Task::kSequenceClassification);
  EXPECT_EQ(job->settings.learning_rate, defaults.learning_rate);
}

TEST(Job, RefusesWhatItDoesNotKnowAndNamesTheNearest) {
  Json value = example();
  value["setings"] = Json::object();
  EXPECT_EQ(error_of(value), "job.json: unknown key 'setings' (did you mean 'settings'?)");
  value = example();
  value["settings"] = {{"learning-rate", 1}};
  EXPECT_EQ(error_of(value), "job.json settings: unknown key 'learning-rate' (did you mean 'learning_rate'?)");
  value = example();
  value["method"] = "prayer";
  EXPECT_NE(error_of(value).find("unknown method 'prayer' (known: full, upper-layers, head"), std::string::npos)
      << error_of(value);
}

TEST(Job, RefusesValuesOutOfRange) {
  for (const auto& [key, bad] :
       std::vector<std::pair<std::string, Json>>{{"learning_rate", 0},
                                                 {"learning_rate", "fast"},
                                                 {"dropout", 1},
                                                 {"batch_size", 0},
                                                 {"batch_size", 1.5},
                                                 {"schedule", "round"},
                                                 {"warmup_ratio", -0.1},
                                                 {"lora", {{"r", 0}}},
                                                 {"lora", {{"target_modules", Json::array()}}}}) {
    Json value = example();
    value["settings"] = {{key, bad}};
    EXPECT_NE(error_of(value), "") << key << " " << bad.dump();
  }
  Json value = example();
  value.erase("tokens");
  EXPECT_NE(error_of(value).find("'tokens' is missing"), std::string::npos);
  value = example();
  value["version"] = 2;
  EXPECT_NE(error_of(value).find("version 1"), std::string::npos);
}

TEST(Job, RefusesSettingsThatMeanNothingToTheMethod) {
  const auto error = [](const char* method, const Json& settings, const char* task = "sequence-classification") {
    Json value = example();
    value["method"] = method;
    value["task"] = task;
    value["settings"] = settings;
    return error_of(value);
  };
  EXPECT_EQ(error("full", {{"lora", {{"r", 8}}}}),
            "job.json: settings.lora means nothing to method full (leave it out)");
  EXPECT_EQ(error("lora", {{"head_learning_rate", 1e-3}}, "causal-lm-labels"),
            "job.json: settings.head_learning_rate means nothing to method lora of a decoder (leave it out)");
  EXPECT_EQ(error("lora", {{"head_learning_rate", 1e-3}}), "");
  EXPECT_NE(error("lora", {{"soft_prompt", {{"tokens", 8}}}}), "");
  EXPECT_NE(error("full", {{"upper_layers", 2}}), "");
  EXPECT_EQ(error("upper-layers", {{"upper_layers", 2}}), "");
  EXPECT_NE(error("dora", {{"lora", {{"pissa", true}}}}), "");
  EXPECT_NE(error("full", {{"distill", {{"alpha", 0.5}}}}), "");
  EXPECT_EQ(error("distill", {{"distill", {{"alpha", 0.5}, {"temperature", 4}}}}), "");
  EXPECT_NE(error("distill", {{"distill", {{"alpha", 1.5}}}}), "");
  EXPECT_NE(error("distill", {{"distill", {{"temperature", 0}}}}), "");
  EXPECT_NE(error("distill", {{"distill", {{"alpha", 0.5}}}}, "causal-lm"), "");  // texts have no probabilities
  EXPECT_NE(error("distill", {{"lora", {{"r", 4}}}}), "");
  EXPECT_EQ(error("distill", {{"lora", {{"r", 4}}}}, "causal-lm"), "");
  EXPECT_NE(error("distill", {{"lora", {{"dropout", 0.1}}}}, "causal-lm-labels"), "");
  EXPECT_NE(error("full", {{"hard_negatives", 1}}), "");
  EXPECT_EQ(error("full", {{"dtype", "bf16"}}), "job.json: settings.dtype means nothing to method full (leave it out)");
  EXPECT_EQ(error("lora", {{"dtype", "bf16"}}), "");
  EXPECT_NE(error("qlora", {{"dtype", "bf16"}}, "causal-lm"), "");
  EXPECT_NE(error("distill", {{"dtype", "bf16"}}), "");
  EXPECT_EQ(error("distill", {{"dtype", "bf16"}}, "causal-lm"), "");
  EXPECT_NE(error("pissa", {{"dtype", "bf16"}}).find("has to stay exact"), std::string::npos);
  EXPECT_NE(error("lora", {{"dtype", "f16"}}).find("one of f32, bf16"), std::string::npos);
  EXPECT_EQ(error("full", {{"activation_checkpointing", true}}), "");
  EXPECT_NE(error("head", {{"activation_checkpointing", true}}), "");
  EXPECT_EQ(
      error("prefix-tuning", {{"soft_prompt", {{"reparameterise", true}, {"init", "random"}}}}, "causal-lm-labels"),
      "");
  EXPECT_NE(error("p-tuning", {{"soft_prompt", {{"reparameterise", true}}}}, "causal-lm-labels"), "");
  EXPECT_NE(error("prompt-tuning", {{"soft_prompt", {{"init", "zeros"}}}}, "causal-lm-labels"), "");
  EXPECT_EQ(error("features", Json::object()),
            "job.json: method features answers by the head that it is given, and 'head' is missing (name one, or train "
            "it with method head)");
}

TEST(Job, TextsHaveNoMetricButTheLoss) {
  Json value = example();
  value["task"] = "causal-lm";
  EXPECT_EQ(parse_job(value, "job.json", "/work").value().metric, Metric::kLoss);
  value["metric"] = "accuracy";
  EXPECT_NE(error_of(value).find("its metric is loss"), std::string::npos) << error_of(value);
}

TEST(LoraTargets, AreFoundByEitherNameAndRefusedOtherwise) {
  const auto found = [](const std::vector<std::string>& names) { return resolve_lora_targets(names, "bert", 1); };
  EXPECT_EQ(found({"all-linear"}).size(), encoder_linear_modules().size());
  EXPECT_EQ(found({"value", "attn_q"}), (std::vector<std::string>{"blk.0.attn_q", "blk.0.attn_v"}));
  EXPECT_EQ(found({"dense"}), (std::vector<std::string>{"blk.0.attn_output", "blk.0.ffn_up", "blk.0.ffn_down"}));
  EXPECT_EQ(found({"intermediate.dense"}), (std::vector<std::string>{"blk.0.ffn_up"}));
  EXPECT_EQ(resolve_lora_targets({"key"}, "bert", 2), (std::vector<std::string>{"blk.0.attn_k", "blk.1.attn_k"}));
  for (const char* name : {"q_proj", "", "quer", "attention\\.self", "(", ".*q_proj"})
    EXPECT_THROW(found({name}), Exception) << name;
  EXPECT_THROW(found({}), Exception);
}

// Values of transformers' get_*_schedule_with_warmup for 10 steps, 2 of them warm-up.
TEST(Schedule, IsThatOfTransformers) {
  const LearningRate linear(Schedule::kLinear, 10, 0.2), cosine(Schedule::kCosine, 10, 0.2),
      constant(Schedule::kConstant, 10, 0.2);
  EXPECT_DOUBLE_EQ(linear.factor(0), 0);
  EXPECT_DOUBLE_EQ(linear.factor(1), 0.5);
  EXPECT_DOUBLE_EQ(linear.factor(2), 1);
  EXPECT_DOUBLE_EQ(linear.factor(6), 0.5);
  EXPECT_DOUBLE_EQ(linear.factor(9), 0.125);
  EXPECT_DOUBLE_EQ(cosine.factor(6), 0.5);
  EXPECT_NEAR(cosine.factor(4), 0.8535533905932737, 1e-15);
  EXPECT_DOUBLE_EQ(constant.factor(1), 0.5);
  EXPECT_DOUBLE_EQ(constant.factor(9), 1);
}

TEST(EncoderNames, AreThoseOfTheModelThatTheUserHas) {
  EXPECT_EQ(hf_module_of_encoder("blk.3.attn_q"), "encoder.layer.3.attention.self.query");
  EXPECT_EQ(hf_module_of_encoder("blk.3.ffn_up", "roberta"), "encoder.layer.3.intermediate.dense");
  EXPECT_EQ(hf_module_of_encoder("blk.3.attn_q", "distilbert"), "transformer.layer.3.attention.q_lin");
  EXPECT_EQ(hf_module_of_encoder("blk.0.ffn_down", "distilbert"), "transformer.layer.0.ffn.lin2");
  EXPECT_EQ(hf_module_of_encoder("token_embd", "distilbert"), std::nullopt);
}

// Decoders are imported first (docs/DECISIONS.md); the message says how.
TEST(HfModel, ADecodersDirectoryIsRefusedByName) {
  const TemporaryDirectory dir;
  write_json_atomic(dir.path() / "config.json", {{"model_type", "phi3"}}).value();
  const auto refused = BaseWeights::open(dir.path());
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("model_type 'phi3' is a decoder"), std::string::npos)
      << refused.error().message;
  EXPECT_NE(refused.error().hint.find("tailor models import"), std::string::npos) << refused.error().hint;
  write_json_atomic(dir.path() / "config.json", {{"model_type", "t5"}}).value();
  EXPECT_NE(to_string(BaseWeights::open(dir.path()).error()).find("expected 'bert'"), std::string::npos);
}

}  // namespace
}  // namespace tailor::tune
