#include "model/rounded_model.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/files.h"
#include "core/rng.h"
#include "model/gguf_file.h"
#include "model/gguf_writer.h"

namespace tailor {
namespace {

TEST(RoundedModel, RoundsToTheNearestWithTiesToEven) {
  for (const float x : {0.0f, 1.0f, -2.5f, 0x1.fep-3f, 0x1p-20f}) EXPECT_EQ(rounded_to_bf16(x), x);
  EXPECT_EQ(rounded_to_bf16(0x1.01p0f), 0x1.00p0f);  // between 1 and 1 + 2^-7: to even
  EXPECT_EQ(rounded_to_bf16(0x1.03p0f), 0x1.04p0f);
  EXPECT_EQ(rounded_to_bf16(0x1.011p0f), 0x1.02p0f);
  EXPECT_EQ(rounded_to_bf16(-0x1.00fp0f), -0x1.00p0f);
  EXPECT_TRUE(std::isnan(rounded_to_bf16(NAN)));
}

TEST(RoundedModel, MatricesAreRoundedOnceAndVectorsAndPositionsStay) {
  const TemporaryDirectory dir;
  std::vector<float> values;
  Rng rng(3);
  for (int i = 0; i < 64; ++i) values.push_back(static_cast<float>(0.02 * rng.normal()));
  GgufWriter writer;
  writer.set("general.architecture", GgufValue::string("llama"));
  const auto give = [&]() -> Result<std::vector<float>> { return values; };
  writer.add("a.weight", TensorType::kF16, {16, 4}, give);
  writer.add("position_embd.weight", TensorType::kF32, {16, 4}, give);
  writer.add("norm.weight", TensorType::kF32, {64}, give);
  writer.add("q.weight", TensorType::kQ8_0, {32, 2}, give);
  writer.write(dir.path() / "m.gguf").value();
  const auto rounded = rounded_to_bf16_cached(dir.path() / "m.gguf", dir.path() / "cache").value();
  EXPECT_NE(rounded, dir.path() / "m.gguf");
  EXPECT_EQ(rounded_to_bf16_cached(dir.path() / "m.gguf", dir.path() / "cache").value(), rounded);
  const GgufFile before = GgufFile::open(dir.path() / "m.gguf").value(), after = GgufFile::open(rounded).value();
  for (const GgufTensor& tensor : after.tensors()) {
    const std::vector<float> was = to_f32(*before.tensor(tensor.name)).value(), is = to_f32(tensor).value();
    const bool matrix = tensor.name == "a.weight" || tensor.name == "q.weight";
    EXPECT_EQ(tensor.type, tensor.name == "q.weight" ? TensorType::kF16 : before.tensor(tensor.name)->type);
    ASSERT_EQ(was.size(), is.size());
    for (std::size_t i = 0; i < is.size(); ++i) {
      EXPECT_NEAR(is[i], matrix ? rounded_to_bf16(was[i]) : was[i], matrix ? 0x1p-25 : 0) << tensor.name;
      if (matrix) {
        EXPECT_EQ(rounded_to_bf16(is[i]), is[i]) << tensor.name;
      }
    }
  }
  // Nothing is left to round.
  EXPECT_EQ(rounded_to_bf16_cached(rounded, dir.path() / "cache").value(), rounded);
}

}  // namespace
}  // namespace tailor
