#pragma once
/// The tiny decoder of tests/golden/decoder_golden.py as a GGUF file, and that script's numbers. Tests only.

#include <ggml.h>
#include <gguf.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/files.h"
#include "core/json.h"
#include "core/rng.h"
#include "core/token_file.h"
#include "tune/decoder_weights.h"
#include "tune/packed_tree.h"

namespace tailor::tune::decoder {

struct TestTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};

struct TestModel {
  std::string architecture = "llama";
  std::int64_t vocab = 128, hidden = 32, layers = 2, heads = 4, kv_heads = 2, ffn = 64, context = 256;
  double eps = 1e-5;
  std::map<std::string, double> numbers{{"rope.freq_base", 10000}};  // further metadata, keys without the architecture
  std::map<std::string, std::string> texts;
  std::vector<TestTensor> tensors;
};

inline TestModel tiny_model(bool tied) {
  constexpr std::uint64_t kSeed = 11;
  TestModel m;
  std::uint64_t stream = 0;
  const auto add = [&](const std::string& name, std::vector<std::int64_t> shape, bool norm) {
    std::int64_t n = 1;
    for (const std::int64_t d : shape) n *= d;
    Rng rng(kSeed, stream++);
    std::vector<float> values;
    for (std::int64_t i = 0; i < n; ++i) {
      const double z = rng.normal();
      values.push_back(static_cast<float>(norm ? 1 + 0.1 * z : 0.2 * z));
    }
    m.tensors.push_back({name + ".weight", std::move(shape), std::move(values)});
  };
  const std::int64_t kv = m.kv_heads * m.hidden / m.heads;
  add("token_embd", {m.vocab, m.hidden}, false);
  for (std::int64_t l = 0; l < m.layers; ++l) {
    const std::string p = "blk." + std::to_string(l) + ".";
    add(p + "attn_norm", {m.hidden}, true);
    add(p + "attn_q", {m.hidden, m.hidden}, false);
    add(p + "attn_k", {kv, m.hidden}, false);
    add(p + "attn_v", {kv, m.hidden}, false);
    add(p + "attn_output", {m.hidden, m.hidden}, false);
    add(p + "ffn_norm", {m.hidden}, true);
    add(p + "ffn_gate", {m.ffn, m.hidden}, false);
    add(p + "ffn_up", {m.ffn, m.hidden}, false);
    add(p + "ffn_down", {m.hidden, m.ffn}, false);
  }
  add("output_norm", {m.hidden}, true);
  if (!tied) add("output", {m.vocab, m.hidden}, false);
  return m;
}

inline void write_gguf(const TestModel& m, const std::filesystem::path& file, ggml_type type = GGML_TYPE_F32) {
  const std::unique_ptr<gguf_context, decltype(&gguf_free)> g(gguf_init_empty(), gguf_free);
  const auto number = [&](const std::string& key, std::int64_t v) {
    gguf_set_val_u32(g.get(), (m.architecture + "." + key).c_str(), static_cast<std::uint32_t>(v));
  };
  gguf_set_val_str(g.get(), "general.architecture", m.architecture.c_str());
  number("block_count", m.layers);
  number("embedding_length", m.hidden);
  number("feed_forward_length", m.ffn);
  number("attention.head_count", m.heads);
  number("attention.head_count_kv", m.kv_heads);
  number("context_length", m.context);
  for (const char* key : {"rms_epsilon", "epsilon"}) {
    gguf_set_val_f32(g.get(), (m.architecture + ".attention.layer_norm_" + key).c_str(), static_cast<float>(m.eps));
  }
  for (const auto& [key, value] : m.numbers) gguf_set_val_f64(g.get(), (m.architecture + "." + key).c_str(), value);
  for (const auto& [key, value] : m.texts)
    gguf_set_val_str(g.get(), (m.architecture + "." + key).c_str(), value.c_str());
  const std::unique_ptr<ggml_context, decltype(&ggml_free)> c(
      ggml_init({.mem_size = std::size_t{8} << 20, .mem_buffer = nullptr, .no_alloc = false}), ggml_free);
  for (const TestTensor& t : m.tensors) {
    const ggml_type stored = t.shape.size() > 1 ? type : GGML_TYPE_F32;
    ggml_tensor* to = t.shape.size() > 1 ? ggml_new_tensor_2d(c.get(), stored, t.shape[1], t.shape[0])
                                         : ggml_new_tensor_1d(c.get(), stored, t.shape[0]);
    ggml_set_name(to, t.name.c_str());
    if (stored == GGML_TYPE_F32) {
      std::copy(t.values.begin(), t.values.end(), static_cast<float*>(to->data));
    } else {
      ggml_quantize_chunk(stored, t.values.data(), to->data, 0, t.shape[0], t.shape[1], nullptr);
    }
    gguf_add_tensor(g.get(), to);
  }
  gguf_write_to_file(g.get(), file.c_str(), false);
}

inline std::filesystem::path environment_path(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::filesystem::path() : std::filesystem::path(value);
}

inline Json golden(const char* name) {
  return read_json(environment_path("TAILOR_SOURCE_DIR") / "tests/golden/data" / name).value();
}

/// Rows of the golden file, owning their masks.
struct TestRows {
  std::vector<std::vector<std::int32_t>> tokens;
  std::vector<std::vector<std::uint8_t>> masks;
  std::vector<SequenceView> views() const {
    std::vector<SequenceView> v;
    for (std::size_t i = 0; i < tokens.size(); ++i) v.push_back({tokens[i], masks[i]});
    return v;
  }
};
inline TestRows test_rows(const Json& rows, std::size_t begin, std::size_t end) {
  TestRows r;
  for (std::size_t i = begin; i < end; ++i) {
    r.tokens.push_back(rows[i]["tokens"].get<std::vector<std::int32_t>>());
    std::vector<std::uint8_t> mask(r.tokens.back().size(), 0);
    const auto learnt = rows[i]["learnt"].get<std::size_t>();
    std::fill(mask.end() - static_cast<std::ptrdiff_t>(learnt), mask.end(), std::uint8_t{1});
    r.masks.push_back(std::move(mask));
  }
  return r;
}

/// A model opened from a file, or from a temporary one.
class OpenModel {
 public:
  explicit OpenModel(const TestModel& m, WeightStorage storage = WeightStorage::kFloat,
                     ggml_type type = GGML_TYPE_F32) {
    write_gguf(m, dir_.path() / "m.gguf", type);
    open(dir_.path() / "m.gguf", storage);
  }
  OpenModel(const std::filesystem::path& file, WeightStorage storage) { open(file, storage); }
  const BaseWeights& base() const { return *base_; }
  DecoderWeights& operator*() { return *weights_; }
  DecoderWeights* operator->() { return weights_.get(); }

 private:
  void open(const std::filesystem::path& file, WeightStorage storage) {
    base_ = std::make_unique<BaseWeights>(BaseWeights::open(file).value());
    weights_ = DecoderWeights::open(*base_, storage).value();
  }
  TemporaryDirectory dir_;
  std::unique_ptr<BaseWeights> base_;
  std::unique_ptr<DecoderWeights> weights_;
};

/// Nine rows to train on and three to answer; label = row number mod 3, as the golden script has it.
inline TokenFile labelled_rows() {
  const Json rows = golden("decoder_tiny.json").at("rows");
  TokenFile file;
  file.vocab_size = 128;
  file.n_labels = 3;
  for (const std::vector<std::int32_t>& answer : {std::vector<std::int32_t>{5, 2}, {5, 6, 2}, {90, 2}})
    file.add_label(answer);
  for (std::int32_t r = 0; r < 12; ++r) {
    file.add_row(rows[static_cast<std::size_t>(r)].at("tokens").get<std::vector<std::int32_t>>(), r % 3,
                 r < 9 ? TokenPart::kTrain : TokenPart::kTest, r);
  }
  return file;
}

}  // namespace tailor::tune::decoder
