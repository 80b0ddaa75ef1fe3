#pragma once
/// For tests: the tiny BERT, its rows and settings, made from the counter-based generator as
/// tests/golden/encoder_golden.py makes them.

#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "core/files.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "core/token_file.h"
#include "tune/settings.h"

namespace tailor::tune::testing {

inline constexpr int kLabels = 5;
inline constexpr std::uint64_t kSeed = 3;

inline std::filesystem::path golden(const std::string& name) {
  const char* root = std::getenv("TAILOR_SOURCE_DIR");
  return std::filesystem::path(root == nullptr ? "." : root) / "tests" / "golden" / "data" / name;
}

/// config.json and model.safetensors of a BERT with 2 layers, width 32, 4 heads, feed-forward 64, 100 words, 40 places.
inline void write_tiny_bert(const std::filesystem::path& dir) {
  using Shape = std::vector<std::int64_t>;
  const std::int64_t d = 32, f = 64;
  std::vector<std::pair<std::string, Shape>> shapes = {{"embeddings.word_embeddings.weight", {100, d}},
                                                       {"embeddings.position_embeddings.weight", {40, d}},
                                                       {"embeddings.token_type_embeddings.weight", {2, d}},
                                                       {"embeddings.LayerNorm.weight", {d}},
                                                       {"embeddings.LayerNorm.bias", {d}}};
  for (int layer = 0; layer < 2; ++layer) {
    for (const auto& [module, out, in] : {std::tuple{"attention.self.query", d, d},
                                          {"attention.self.key", d, d},
                                          {"attention.self.value", d, d},
                                          {"attention.output.dense", d, d},
                                          {"attention.output.LayerNorm", d, std::int64_t{0}},
                                          {"intermediate.dense", f, d},
                                          {"output.dense", d, f},
                                          {"output.LayerNorm", d, std::int64_t{0}}}) {
      const std::string name = "encoder.layer." + std::to_string(layer) + "." + module;
      shapes.push_back({name + ".weight", in == 0 ? Shape{out} : Shape{out, in}});
      shapes.push_back({name + ".bias", {out}});
    }
  }
  std::vector<std::vector<float>> values(shapes.size());
  std::vector<SafeTensor> tensors;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const auto& [name, shape] = shapes[i];
    std::int64_t count = 1;
    for (const std::int64_t n : shape) count *= n;
    Rng rng(1, i);
    for (std::int64_t k = 0; k < count; ++k) {
      values[i].push_back(static_cast<float>(0.2 * rng.normal() + (name.ends_with("LayerNorm.weight") ? 1 : 0)));
    }
    tensors.push_back(safe_tensor<float>(name, "F32", shape, values[i]));
  }
  write_safetensors(dir / "model.safetensors", tensors).value();
  write_file_atomic(
      dir / "config.json",
      R"({"model_type":"bert","hidden_act":"gelu","num_hidden_layers":2,"hidden_size":32,"intermediate_size":64,)"
      R"("num_attention_heads":4,"max_position_embeddings":40,"layer_norm_eps":1e-12,"vocab_size":100})")
      .value();
}

/// 40 rows to train on; the last `validation` of them also stand in the validation part and `test` in the test part.
inline TokenFile tiny_rows(int validation = 0, int test = 0) {
  Rng rng(2, 0);
  std::vector<std::int64_t> lengths;
  for (int i = 0; i < 40; ++i) lengths.push_back(2 + static_cast<std::int64_t>(rng.below(12)));
  TokenFile file;
  file.n_labels = kLabels;
  file.vocab_size = 100;
  for (std::size_t i = 0; i < 40; ++i) {
    std::vector<std::int32_t> ids;
    for (std::int64_t k = 0; k < lengths[i]; ++k) ids.push_back(static_cast<std::int32_t>(1 + rng.below(79)));
    const auto label = static_cast<std::int32_t>(rng.below(kLabels));
    file.add_row(ids, label, TokenPart::kTrain, 100 + static_cast<std::int64_t>(i));
  }
  for (const auto& [count, part] : {std::pair{validation, TokenPart::kValidation}, {test, TokenPart::kTest}}) {
    for (int i = 0; i < count; ++i) {
      const auto row = static_cast<std::size_t>(39 - i);
      const std::vector<std::int32_t> ids(file.row(row).begin(), file.row(row).end());
      file.add_row(ids, file.labels[row], part, 200 + i);
    }
  }
  return file;
}

/// 20 steps as in the golden script; writes base and tokens into `dir`, output goes to dir / "out".
inline Job tiny_job(const std::filesystem::path& dir, const TokenFile& rows, const std::string& method = "full") {
  write_tiny_bert(dir);
  write_token_file(dir / "tokens.safetensors", rows).value();
  Job job;
  job.method = method;
  job.base = dir;
  job.tokens = dir / "tokens.safetensors";
  job.out = dir / "out";
  job.seed = kSeed;
  job.threads = 2;
  job.checkpoint_every_seconds = 0;
  job.settings.learning_rate = 5e-3;
  job.settings.head_learning_rate = 1e-2;
  job.settings.weight_decay = 0.05;
  job.settings.batch_size = 6;
  job.settings.max_steps = 20;
  job.settings.dropout = 0;
  job.settings.lora = {.r = 4, .alpha = 8, .dropout = 0, .target_modules = {"all-linear"}};
  return job;
}

}  // namespace tailor::tune::testing
