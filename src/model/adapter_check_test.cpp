#include "model/adapter_check.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/gguf_writer.h"
#include "model/test_support.h"

namespace tailor {
namespace {

using testing::expect_error;
using Shape = std::vector<std::uint64_t>;

/// A file of matrices that hold zeros, with values of metadata.
struct Parts {
  std::vector<std::pair<std::string, GgufValue>> values;
  struct Matrix {
    std::string name;
    Shape shape;
    TensorType type = TensorType::kF32;
  };
  std::vector<Matrix> matrices;

  void set(const std::string& key, GgufValue value) { values.emplace_back(key, std::move(value)); }
  GgufFile write(const std::filesystem::path& to) const {
    GgufWriter writer;
    for (const auto& [key, value] : values) writer.set(key, value);
    for (const Matrix& m : matrices) {
      std::uint64_t count = 1;
      for (const std::uint64_t n : m.shape) count *= n;
      if (m.type == TensorType::kF32) {
        writer.add(m.name, m.type, m.shape,
                   [count]() -> Result<std::vector<float>> { return std::vector<float>(count); });
      } else {
        const std::string zeros(tensor_bytes(m.type, m.shape[0], count), '\0');
        writer.add_raw(m.name, m.type, m.shape,
                       [zeros]() -> Result<std::string_view> { return std::string_view(zeros); });
      }
    }
    writer.write(to).value();
    return GgufFile::open(to).value();
  }
};

class AdapterCheck : public ::testing::Test {
 protected:
  AdapterCheck() {
    base_.set("general.architecture", GgufValue::string("llama"));
    base_.matrices = {{"token_embd.weight", {64, 100}},
                      {"output.weight", {64, 100}},
                      {"blk.0.attn_norm.weight", {64}},
                      {"blk.0.attn_q.weight", {64, 96}},
                      {"blk.0.ffn_gate_exps.weight", {64, 32, 3}}};
    adapter_.set("general.type", GgufValue::string("adapter"));
    adapter_.set("general.architecture", GgufValue::string("llama"));
    adapter_.set("adapter.type", GgufValue::string("lora"));
    adapter_.set("adapter.lora.alpha", GgufValue::f32(16));
    adapter_.matrices = {{"blk.0.attn_q.weight.lora_a", {64, 8}}, {"blk.0.attn_q.weight.lora_b", {8, 96}}};
  }
  Status check(const Parts& adapter) { return check(adapter, base_); }
  Status check(const Parts& adapter, const Parts& base) {
    return check_llama_adapter(adapter.write(dir_.path() / "adapter.gguf"),
                               AdapterBase::of(base.write(dir_.path() / "base.gguf")));
  }
  void refuses(const Parts& adapter, const std::string& part) {
    const Status status = check(adapter);
    expect_error(status, ErrorCode::kInvalidArgument, part);
    expect_error(status, ErrorCode::kInvalidArgument, "cannot be used as an adapter of base.gguf");
  }
  Parts with(const std::string& key, GgufValue value) const {
    Parts out = adapter_;
    out.set(key, std::move(value));
    return out;
  }
  Parts of(std::vector<Parts::Matrix> matrices) const {
    Parts out = adapter_;
    out.matrices = std::move(matrices);
    return out;
  }
  TemporaryDirectory dir_{"adapter-check"};
  Parts base_, adapter_;
};

TEST_F(AdapterCheck, AcceptsWhatFits) {
  EXPECT_TRUE(check(adapter_));
  EXPECT_TRUE(check(of({{"blk.0.attn_q.weight.lora_b", {32, 96}, TensorType::kQ8_0},
                        {"blk.0.attn_q.weight.lora_a", {64, 32, 1, 1}, TensorType::kF16}})));
  EXPECT_TRUE(check(
      of({{"blk.0.ffn_gate_exps.weight.lora_a", {64, 4, 3}}, {"blk.0.ffn_gate_exps.weight.lora_b", {4, 32, 3}}})));
  EXPECT_TRUE(check(of({{"token_embd.weight.lora_a", {4, 100}}, {"token_embd.weight.lora_b", {4, 64}}})));
}

TEST_F(AdapterCheck, RefusesMetadataThatLlamaWouldAbortOn) {
  for (const char* key : {"general.type", "general.architecture", "adapter.type"}) {
    refuses(with(key, GgufValue::u32(1)), std::string("'") + key + "'");
    refuses(with(key, GgufValue::string("other")), std::string("'") + key + "'");
  }
  refuses(with("adapter.lora.alpha", GgufValue::u32(16)), "alpha");
  refuses(with("adapter.lora.alpha", GgufValue::string("16")), "alpha");
  refuses(with("adapter.lora.alpha", GgufValue::f32(NAN)), "finite");
  refuses(with("adapter.lora.alpha", GgufValue::f32(INFINITY)), "finite");
  refuses(with("adapter.alora.invocation_tokens", GgufValue::i32s(std::vector<std::int32_t>{1, 2})), "activated LoRA");
}

TEST_F(AdapterCheck, RefusesMatricesThatDoNotFitTogether) {
  const std::string q = "blk.0.attn_q.weight", experts = "blk.0.ffn_gate_exps.weight";
  const auto pair = [&](const std::string& name, Shape a, Shape b) {
    return of({{name + ".lora_a", std::move(a)}, {name + ".lora_b", std::move(b)}});
  };
  refuses(of({}), "no matrices");
  refuses(of({{q + ".lora_a", {64, 8}}}), "one of the two matrices");
  refuses(of({{q + ".lora_b", {8, 96}}}), "one of the two matrices");
  refuses(of({{"blk.0.attn_norm.weight", {64}}}), "is no part of an adapter");
  refuses(of({{"odd\x1b[2J", {64}}}), "odd?[2J is no part");
  refuses(pair("blk.1.attn_q.weight", {64, 8}, {8, 96}), "which the model has not");
  refuses(pair("blk.lora_a.0.attn_q.weight", {64, 8}, {8, 96}),
          "which the model has not");  // llama.cpp drops the middle
  refuses(pair(q, {32, 8}, {8, 96}), "another shape");
  refuses(pair(q, {64, 8}, {8, 64}), "another shape");
  refuses(pair(q, {64, 8}, {4, 96}), "another shape");
  refuses(pair(q, {64, 8, 2}, {8, 96}), "another shape");
  refuses(pair(q, {64, 8}, {8, 96, 5}), "another shape");
  refuses(pair(q, {64, 8, 1, 3}, {8, 96}), "another shape");
  refuses(pair(q, {64, 97}, {97, 96}), "rank of 97");
  refuses(pair("blk.0.attn_norm.weight", {64, 1}, {1, 1}), "another shape");
  refuses(pair(experts, {64, 4, 2}, {4, 32, 3}), "another shape");
  refuses(pair(experts, {64, 4}, {4, 32}), "another shape");
  refuses(of({{q + ".lora_a", {64, 8}, static_cast<TensorType>(26)}, {q + ".lora_b", {8, 96}}}), "of type i32");
  refuses(pair("token_embd.weight", {4, 64}, {4, 100}), "another shape");
  refuses(pair("token_embd.weight", {4, 100}, {8, 64}), "another shape");
}

TEST_F(AdapterCheck, RefusesTheWordsVectorsWhereTheOutputIsTheSameMatrix) {
  const Parts words = of({{"token_embd.weight.lora_a", {4, 100}}, {"token_embd.weight.lora_b", {4, 64}}});
  Parts tied = base_;
  std::erase_if(tied.matrices, [](const Parts::Matrix& m) { return m.name == "output.weight"; });
  expect_error(check(words, tied), ErrorCode::kInvalidArgument, "the words' vectors");
  tied.set("llama.attention.causal", GgufValue::boolean(false));
  EXPECT_TRUE(check(words, tied)) << "an encoder has no such output";
}

}  // namespace
}  // namespace tailor
