#pragma once
/// For tests: the tiny decoders of tests/golden/decoder_family_golden.py, as Hugging Face directories.

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/files.h"
#include "core/json.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "model/gguf_writer.h"
#include "model/test_support.h"
#include "model/token_table.h"

namespace tailor::testing {

/// All of them; some variants have logits but no gradients.
inline const std::vector<std::string>& tiny_decoders() {
  static const std::vector<std::string> names = {
      "llama",           "llama_variant", "llama_yarn", "llama_longrope", "mistral",      "qwen2", "qwen3",
      "qwen3_variant",   "gemma2",        "gemma3",     "phi3",           "phi3_variant", "gpt2",  "gptneox",
      "gptneox_variant", "falcon",        "falcon_new", "bloom",          "mpt"};
  return names;
}

/// Files and tensors, to be changed before they are written.
class TinyDecoder {
 public:
  explicit TinyDecoder(const std::string& name) {
    reference = read_json(golden(("decoder_family_" + name + ".json").c_str())).value();
    files["config.json"] = reference["config"];
    const auto seed = reference["seed"].get<std::uint64_t>();
    std::uint64_t stream = 0;
    for (const Json& item : reference["tensors"]) {
      Tensor t{item[1].get<std::vector<std::int64_t>>(), {}};
      std::int64_t count = 1;
      for (const std::int64_t n : t.shape) count *= n;
      Rng rng(seed, stream++);
      for (std::int64_t i = 0; i < count; ++i) {
        t.values.push_back(static_cast<float>(item[3].get<double>() + item[2].get<double>() * rng.normal()));
      }
      tensors[item[0].get<std::string>()] = std::move(t);
    }
    set_byte_tokenizer();
  }

  /// `type` "F32", "F16" or "BF16"; with `shards` two files and an index.
  void write(const std::filesystem::path& dir, const std::string& type = "F32", bool shards = false) const {
    std::filesystem::create_directories(dir);
    for (const auto& [file, json] : files) write_json_atomic(dir / file, json).value();
    for (const auto& [file, text] : texts) write_file_atomic(dir / file, text).value();
    std::map<std::string, std::string> bytes;
    std::vector<SafeTensor> all;
    for (const auto& [name, t] : tensors) {
      bytes[name] = stored(name, type);
      all.push_back({name, type, t.shape, bytes[name]});
    }
    if (!shards) {
      write_safetensors(dir / "model.safetensors", all).value();
      return;
    }
    const std::size_t half = all.size() / 2;
    const std::vector<SafeTensor> parts[] = {{all.begin(), all.begin() + static_cast<std::ptrdiff_t>(half)},
                                             {all.begin() + static_cast<std::ptrdiff_t>(half), all.end()}};
    Json map = Json::object();
    for (int i = 0; i < 2; ++i) {
      const std::string file = "model-0000" + std::to_string(i + 1) + "-of-00002.safetensors";
      write_safetensors(dir / file, parts[i]).value();
      for (const SafeTensor& t : parts[i]) map[t.name] = file;
    }
    write_json_atomic(dir / "model.safetensors.index.json", Json{{"metadata", Json::object()}, {"weight_map", map}})
        .value();
  }

  /// The bytes of a tensor in a type, rounded to it.
  std::string stored(const std::string& name, const std::string& type) const {
    const TensorType as = type == "F16" ? TensorType::kF16 : type == "BF16" ? TensorType::kBF16 : TensorType::kF32;
    return encode_tensor(as, tensors.at(name).values, 1).value();
  }

  struct Tensor {
    std::vector<std::int64_t> shape;
    std::vector<float> values;
  };
  Json reference;  // what transformers gives: tokens, logits, …
  std::map<std::string, Json> files;
  std::map<std::string, std::string> texts;
  std::map<std::string, Tensor> tensors;

 private:
  /// Single bytes and one merge, enough for 288 rows.
  void set_byte_tokenizer() {
    Json vocab = Json::object();
    for (const char* token : {"<pad>", "<s>", "</s>"}) vocab[token] = vocab.size();
    for (std::uint32_t byte = 0; byte < 256; ++byte) vocab[byte_letter(byte)] = vocab.size();
    vocab["he"] = vocab.size();
    Json added = Json::array();
    for (int i = 0; i < 3; ++i) {
      added.push_back({{"id", i}, {"content", std::next(vocab.begin(), i).key()}, {"special", true}});
    }
    files["tokenizer.json"] = {
        {"added_tokens", added},
        {"normalizer", nullptr},
        {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}}},
        {"post_processor", nullptr},
        {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array({Json{"h", "e"}})}}}};
    files["tokenizer_config.json"] = {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"chat_template", "{{ messages }}"}};
  }
};

}  // namespace tailor::testing
