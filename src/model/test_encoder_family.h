#pragma once
/// For tests: the tiny DistilBERT, RoBERTa and ModernBERT of tests/golden/encoder_family_golden.py, as Hugging Face
/// directories.

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/files.h"
#include "core/json.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "model/test_support.h"

namespace tailor::testing {

/// Files and tensors, to be changed before they are written.
class TinyEncoder {
 public:
  /// "distilbert", "roberta" or "modernbert".
  explicit TinyEncoder(const std::string& name) : name_(name) {
    const Json& golden_values = reference();
    for (const auto& [file, json] : golden_values["files"].items()) files[file] = json;
    const auto seed = golden_values["seed"].get<std::uint64_t>();
    std::uint64_t stream = 0;
    for (const Json& item : golden_values["tensor_names"]) {
      const auto tensor = item[0].get<std::string>();
      Tensor t{item[1].get<std::vector<std::int64_t>>(), {}};
      std::int64_t count = 1;
      for (const std::int64_t n : t.shape) count *= n;
      const bool scale = tensor.ends_with("LayerNorm.weight") || tensor.ends_with("norm.weight");
      Rng rng(seed, stream++);
      for (std::int64_t i = 0; i < count; ++i) {
        t.values.push_back(static_cast<float>(0.2 * rng.normal() + (scale ? 1 : 0)));
      }
      tensors[tensor] = std::move(t);
    }
    if (golden_values.contains("vocab")) {
      for (const Json& word : golden_values["vocab"]) texts["vocab.txt"] += word.get<std::string>() + "\n";
    }
  }

  /// What transformers gives: ids, vectors, ….
  const Json& reference() const {
    static const Json json = read_json(golden("encoder_family.json")).value();
    return json[name_];
  }

  void write(const std::filesystem::path& dir) const {
    for (const auto& [file, json] : files) write_json_atomic(dir / file, json).value();
    for (const auto& [file, text] : texts) write_file_atomic(dir / file, text).value();
    std::vector<SafeTensor> out;
    for (const auto& [tensor, t] : tensors) out.push_back(safe_tensor<float>(tensor, "F32", t.shape, t.values));
    write_safetensors(dir / "model.safetensors", out).value();
  }

  /// RoBERTa's tokenizer.json as vocab.json and merges.txt.
  void split_tokenizer() {
    const Json model = files["tokenizer.json"]["model"];
    files.erase("tokenizer.json");
    files["vocab.json"] = model["vocab"];
    std::string& merges = texts["merges.txt"] = "#version: 0.2\n";
    for (const Json& merge : model["merges"]) {
      merges += merge[0].get<std::string>() + " " + merge[1].get<std::string>() + "\n";
    }
  }

  struct Tensor {
    std::vector<std::int64_t> shape;
    std::vector<float> values;
  };
  std::map<std::string, Json> files;
  std::map<std::string, std::string> texts;
  std::map<std::string, Tensor> tensors;

 private:
  std::string name_;
};

}  // namespace tailor::testing
