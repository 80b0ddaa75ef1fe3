#include "model/requantize.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/gguf_file.h"
#include "model/gguf_writer.h"
#include "model/llama_runtime.h"
#include "model/test_support.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;

TEST(Requantize, KeepsTheModelAndItsValues) {
  const TemporaryDirectory dir("requantize-test");
  const auto original = GgufFile::open(testing::smollm_file()).value();
  const auto exact = original.tensor_f32("blk.0.ffn_up.weight").value();
  double power = 0;
  for (const float v : exact) power += static_cast<double>(v) * v;
  for (const auto& [type, stored, tolerance] :
       {std::tuple{QuantType::kQ8_0, TensorType::kQ8_0, 0.01}, std::tuple{QuantType::kQ4_0, TensorType::kQ4_0, 0.12},
        std::tuple{QuantType::kF16, TensorType::kF16, 0.001}}) {
    const fs::path out = requantize_cached(testing::smollm_file(), dir.path() / "cache", type).value();
    EXPECT_EQ(requantize_cached(testing::smollm_file(), dir.path() / "cache", type).value(), out);
    const auto file = GgufFile::open(out).value();
    EXPECT_EQ(file.tensors().size(), original.tensors().size());
    EXPECT_EQ(file.tensor("blk.0.ffn_up.weight")->type, stored);
    EXPECT_EQ(file.tensor("blk.0.ffn_norm.weight")->type, TensorType::kF32);
    const auto values = file.tensor_f32("blk.0.ffn_up.weight").value();
    double error = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) error += std::pow(static_cast<double>(values[i]) - exact[i], 2);
    EXPECT_LT(std::sqrt(error / power), tolerance) << name_of(type);
    EXPECT_TRUE(load_llama_model(out, {.vocab_only = true}));
  }
  // A file may be put in its own place.
  const fs::path again = requantize_cached(testing::smollm_file(), dir.path() / "cache", QuantType::kF16).value();
  requantize(again, again, QuantType::kQ4KM).value();
  EXPECT_EQ(GgufFile::open(again).value().tensors().size(), original.tensors().size());
  EXPECT_LT(fs::file_size(again), fs::file_size(testing::smollm_file()) * 3 / 2);
  // Nothing but the three files: temporary ones are gone.
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path() / "cache"), fs::directory_iterator()), 3);
}

TEST(Requantize, Failures) {
  const TemporaryDirectory dir("requantize-test");
  expect_error(requantize(dir.path() / "none.gguf", dir.path() / "o.gguf", QuantType::kQ8_0), ErrorCode::kNotFound,
               "none.gguf");
  write_file_atomic(dir.path() / "bad.gguf", "GGUF").value();
  expect_error(requantize(dir.path() / "bad.gguf", dir.path() / "o.gguf", QuantType::kQ8_0), ErrorCode::kCorruptData,
               "bad.gguf");
  const auto r = requantize(testing::smollm_file(), dir.path() / "no" / "o.gguf", QuantType::kQ8_0);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, ErrorCode::kIo);
  EXPECT_FALSE(fs::exists(dir.path() / "o.gguf"));
}

}  // namespace
}  // namespace tailor
