// Adapters that are gone on with, and rows of single tokens, against PEFT: tests/golden/adapter_continued_golden.py.

#include "tune/adapter_start.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>

#include "core/files.h"
#include "tune/decoder_test_model.h"
#include "tune/encoder_test_model.h"
#include "tune/job.h"
#include "tune/method_parity.h"

namespace tailor::tune {
namespace {

namespace fs = std::filesystem;

constexpr const char* kValues = "adapter_continued.safetensors";

Json golden_cases() {
  return read_json(testing::golden("adapter_continued.json")).value();
}

/// The start of a case as PEFT saved it, changed by `change`.
void write_start(const std::string& name, const fs::path& dir,
                 const std::function<void(Json& config, testing::NamedValues& tensors)>& change = {}) {
  Json config = golden_cases().at(name).at("start");
  testing::NamedValues values = testing::read_values(testing::golden(kValues), name + "/start/");
  if (change) change(config, values);
  fs::create_directories(dir);
  write_json_atomic(dir / "adapter_config.json", config).value();
  std::vector<SafeTensor> tensors;
  for (const auto& [tensor, v] : values) tensors.push_back(safe_tensor<float>(tensor, "F32", v.shape, v.numbers));
  write_safetensors(dir / "adapter_model.safetensors", tensors).value();
}

/// What is saved at the end; not what the start was.
testing::NamedValues expected_of(const std::string& name) {
  testing::NamedValues values = testing::read_values(testing::golden(kValues), name + "/");
  std::erase_if(values, [](const auto& tensor) { return tensor.first.starts_with("start/"); });
  return values;
}

class ContinuedDecoder : public ::testing::TestWithParam<const char*> {};

void train_decoder(const std::string& name, Json more) {
  const Json reference = golden_cases().at(name);
  const TemporaryDirectory dir;
  decoder::write_gguf(decoder::tiny_model(reference.at("tied")), dir.path() / "base.gguf");
  if (reference.contains("start")) {
    write_start(name, dir.path() / "start");
    more["adapter"] = "start";
  }
  testing::MethodRun run = testing::train_as(reference, "lora", "causal-lm-labels", 5, dir.path() / "base.gguf",
                                             decoder::labelled_rows(), dir.path(), more);
  testing::expect_run(run, reference);
  const testing::NamedValues expected = expected_of(name);
  // Beside PEFT's layout the merged tensors are saved, where llama.cpp's has no place.
  std::erase_if(run.trained, [](const auto& tensor) { return !tensor.first.starts_with("base_model."); });
  testing::expect_trained(run.trained, expected);
}

TEST_P(ContinuedDecoder, TrainsAsPeft) {
  train_decoder(GetParam(), Json::object());
}
TEST_P(ContinuedDecoder, TrainsAsPeftInPlainAten) {
  train_decoder(GetParam(), Json{{"kernels", "portable"}});
}

INSTANTIATE_TEST_SUITE_P(All, ContinuedDecoder,
                         ::testing::Values("lora", "some-modules", "dora", "whole", "rows", "rows-tied", "new-rows",
                                           "new-rows-tied"),
                         [](const auto& test) {
                           std::string test_name = test.param;
                           std::replace(test_name.begin(), test_name.end(), '-', '_');
                           return test_name;
                         });

class ContinuedEncoder : public ::testing::TestWithParam<const char*> {};

TEST_P(ContinuedEncoder, TrainsAsPeft) {
  const Json reference = golden_cases().at(GetParam());
  const TemporaryDirectory dir;
  testing::write_tiny_bert(dir.path());
  write_start(GetParam(), dir.path() / "start");
  const testing::MethodRun run =
      testing::train_as(reference, "lora", "sequence-classification", testing::kSeed, dir.path(),
                        testing::tiny_rows(0, 10), dir.path(), Json{{"adapter", "start"}});
  testing::expect_run(run, reference);
  testing::expect_trained(run.trained, expected_of(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(All, ContinuedEncoder, ::testing::Values("encoder-lora", "encoder-dora"),
                         [](const auto& test) { return std::string(test.param).substr(8); });

class AdapterStartTest : public ::testing::Test {
 protected:
  Result<Json> run(const std::string& name, const Json& lora = Json::object(), const std::string& method = "lora") {
    decoder::write_gguf(model_, dir_.path() / "base.gguf");
    write_token_file(dir_.path() / "tokens.safetensors", decoder::labelled_rows()).value();
    Json value = {{"format", "tailor-tune-job"},
                  {"version", 1},
                  {"task", "causal-lm-labels"},
                  {"method", method},
                  {"base", "base.gguf"},
                  {"tokens", "tokens.safetensors"},
                  {"out", out_},
                  {"adapter", name},
                  {"seed", 5},
                  {"threads", 1},
                  {"checkpoint_every_seconds", 0},
                  {"settings", {{"max_steps", 3}, {"batch_size", 4}, {"warmup_ratio", 0}}}};
    if (!lora.empty()) value["settings"]["lora"] = lora;
    TAILOR_TRY(const Job job, parse_job(value, "job.json", dir_.path()));
    return run_job(
        job, [](const Json&) {}, CancelToken(), std::chrono::steady_clock::now());
  }
  std::string refusal(const std::string& name, const Json& lora = Json::object(), const std::string& method = "lora") {
    const auto result = run(name, lora, method);
    return result ? "" : to_string(result.error());
  }
  void start(const std::string& name = "lora",
             const std::function<void(Json& config, testing::NamedValues& tensors)>& change = {}) {
    fs::remove_all(dir_.path() / "start");
    write_start(name, dir_.path() / "start", change);
  }
  void expect(const std::string& seen, const std::string& part) {
    EXPECT_NE(seen.find(part), std::string::npos) << "message: " << seen << "\nexpected: " << part;
  }
  TemporaryDirectory dir_;
  decoder::TestModel model_ = decoder::tiny_model(false);
  std::string out_ = "out";
};

// What tailor-tune saves for PEFT and for llama.cpp is the same start, and goes on as the run that saved it would.
TEST_F(AdapterStartTest, OurOwnFilesAreStartsInBothLayouts) {
  start();
  ASSERT_EQ(refusal("start"), "");
  out_ = "from-peft";
  const Json peft = run("out").value();
  out_ = "from-gguf";
  const Json gguf = run("out/adapter.gguf").value();
  EXPECT_EQ(peft.at("losses"), gguf.at("losses"));
  EXPECT_EQ(gguf.at("settings").at("lora").at("r"), 2);
  EXPECT_EQ(gguf.at("settings").at("lora").at("alpha"), 4);
  EXPECT_EQ(peft.at("model").at("adapter").at("began_at"), "out");
  EXPECT_EQ(read_file(dir_.path() / "from-peft" / "adapter.gguf").value(),
            read_file(dir_.path() / "from-gguf" / "adapter.gguf").value());
}

TEST_F(AdapterStartTest, SettingsThatSayOtherwiseAreNamed) {
  start();
  expect(refusal("start", {{"r", 4}}), "settings.lora.r is 4, but the adapter");
  expect(refusal("start", {{"r", 4}}), "has 2 (leave it out: the adapter's own is taken)");
  expect(refusal("start", {{"alpha", 8}}), "settings.lora.alpha is 8");
  expect(refusal("start", {{"target_modules", {"q_proj"}}}), "which lora.target_modules (q_proj) does not name");
  EXPECT_EQ(refusal("start", {{"r", 2}, {"alpha", 4}, {"target_modules", {"all-linear"}}}), "");
  expect(refusal("start", Json::object(), "rslora"), "method rslora sets it: use method lora");
  expect(refusal("start", Json::object(), "dora"), "settings.lora.dora is true");
  expect(refusal("start", Json::object(), "pissa"), "does not begin at the base's singular values");
  expect(refusal("start", Json::object(), "full"), "'adapter' means nothing to method full");
  start("some-modules");
  expect(refusal("start", {{"target_modules", {"all-linear"}}}), "which it does not change");
  start("dora");
  EXPECT_EQ(refusal("start", Json::object(), "dora"), "");
}

TEST_F(AdapterStartTest, AnAdapterOfAnotherModelIsRefused) {
  start();
  ASSERT_EQ(refusal("start"), "");
  out_ = "other";
  for (decoder::TestTensor& tensor : model_.tensors) {
    if (tensor.name == "blk.1.ffn_norm.weight") tensor.values[3] += 0.01f;
  }
  expect(refusal("out"), "it was trained on another model than");  // by what our own files say
  model_ = decoder::tiny_model(false);
  start("lora", [](Json&, testing::NamedValues& tensors) {
    auto node = tensors.extract("base_model.model.model.layers.1.mlp.up_proj.lora_A.weight");
    node.key() = "base_model.model.model.layers.7.mlp.up_proj.lora_A.weight";
    tensors.insert(std::move(node));
    node = tensors.extract("base_model.model.model.layers.1.mlp.up_proj.lora_B.weight");
    node.key() = "base_model.model.model.layers.7.mlp.up_proj.lora_B.weight";
    tensors.insert(std::move(node));
  });
  expect(refusal("start"), "it changes model.layers.7.mlp.up_proj, which the model has not");
  start("lora", [](Json&, testing::NamedValues& tensors) {
    testing::Values& a = tensors.at("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight");
    a.shape = {2, 16};
    a.numbers.resize(32);
  });
  expect(refusal("start"), "have shapes [2, 16] and [64, 2], the model's module is [64, 32]");
}

TEST_F(AdapterStartTest, WhatCannotBeGoneOnWithIsNamed) {
  expect(refusal("absent"), "absent");
  expect(refusal("base.gguf"), "it is no low-rank adapter, but a model");
  fs::create_directories(dir_.path() / "empty");
  expect(refusal("empty"), "there is no adapter_config.json");
  start("lora", [](Json& config, testing::NamedValues&) { config["peft_type"] = "PREFIX_TUNING"; });
  expect(refusal("start"), "its peft_type is 'PREFIX_TUNING'");
  start("lora", [](Json& config, testing::NamedValues&) { config["init_lora_weights"] = "pissa"; });
  expect(refusal("start"), "it begins as pissa");
  start("lora", [](Json& config, testing::NamedValues&) { config["alpha_pattern"] = {{"q_proj", 7}}; });
  expect(refusal("start"),
         "one rank and one alpha can be gone on with (fold it into the base with `tailor models merge`");
  start("lora", [](Json&, testing::NamedValues& tensors) {
    tensors.erase("base_model.model.model.layers.0.mlp.up_proj.lora_B.weight");
  });
  expect(refusal("start"), "one of the two matrices for model.layers.0.mlp.up_proj is missing");
  start("lora", [](Json&, testing::NamedValues& tensors) {
    tensors["base_model.model.model.layers.0.self_attn.q_proj.base_layer.bias"] = {{32}, std::vector<float>(32)};
  });
  expect(refusal("start"), "model.layers.0.self_attn.q_proj.bias was trained too");
  start("dora", [](Json&, testing::NamedValues& tensors) {
    tensors.erase("base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector");
  });
  expect(refusal("start"), "the lengths of model.layers.0.mlp.up_proj are missing");
  start("whole");
  expect(refusal("start", {{"modules_to_save", Json::array()}}), "which lora.modules_to_save does not name");
}

TEST_F(AdapterStartTest, AnAdapterIsNoBase) {
  start();
  ASSERT_EQ(refusal("start"), "");
  fs::copy_file(dir_.path() / "out" / "adapter.gguf", dir_.path() / "adapter.gguf");
  Job job;
  job.task = Task::kCausalLmLabels;
  job.method = "lora";
  job.base = dir_.path() / "adapter.gguf";
  job.tokens = dir_.path() / "tokens.safetensors";
  job.out = dir_.path() / "none";
  const auto result = run_job(
      job, [](const Json&) {}, CancelToken(), std::chrono::steady_clock::now());
  ASSERT_FALSE(result);
  expect(to_string(result.error()), "is an adapter, not a model (name the model that it was trained on as the base");
}

TEST_F(AdapterStartTest, TokensThatAreNotThereAreNamed) {
  start();
  expect(refusal("start", {{"trained_tokens", {5, 128}}}), "there is no token 128, base.gguf knows 128");
  expect(refusal("start", {{"trained_tokens", {5, 5}}}), "a list with each token once");
  expect(refusal("start", {{"trained_tokens", {5}}, {"modules_to_save", {"embed_tokens"}}}),
         "is trained whole already");
  start("rows");
  expect(refusal("start", {{"trained_tokens", {5}}}), "settings.lora.trained_tokens is [5], but the adapter");
}

// Rows of the frozen table are left as they are, and in memory as blocks it is the same.
TEST_F(AdapterStartTest, OnlyTheRowsOfTheTokensChange) {
  start();
  const auto rows_of = [&](const std::string& method) {
    out_ = "rows-" + method;
    run("start", {{"trained_tokens", {83, 127}}}, method).value();
    const auto file = SafetensorsFile::open(dir_.path() / out_ / "weights.safetensors").value();
    const SafeTensor words = file.get("token_embd.weight", "F32", 2).value();
    std::vector<float> values(words.bytes.size() / sizeof(float));
    std::memcpy(values.data(), words.bytes.data(), words.bytes.size());
    return values;
  };
  const std::vector<float> lora = rows_of("lora"), blocks = rows_of("qlora");
  const std::vector<float>& before = model_.tensors[0].values;
  ASSERT_EQ(lora.size(), before.size());
  for (std::size_t token = 0; token < 128; ++token) {
    bool changed = false;
    for (std::size_t i = token * 32; i < (token + 1) * 32; ++i) {
      changed |= lora[i] != before[i];
      EXPECT_NEAR(lora[i], blocks[i], 1e-5);
    }
    EXPECT_EQ(changed, token == 83 || token == 127) << token;
  }
}

}  // namespace
}  // namespace tailor::tune
