#include "model/model_weights.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/json.h"
#include "model/half.h"
#include "model/test_support.h"

namespace tailor {
namespace {

using testing::expect_error;
using testing::raw;

class ModelWeightsTest : public ::testing::Test {
 protected:
  std::filesystem::path put(const std::string& header, const std::string& data) {
    const auto file = dir_.path() / "m.safetensors";
    write_file_atomic(file, raw<std::uint64_t>(header.size()) + header + data).value();
    return file;
  }
  TemporaryDirectory dir_{"model-weights-test"};
};

TEST_F(ModelWeightsTest, ConvertsEveryType) {
  const std::string data = raw(1.5) + raw(2.5f) + raw<std::uint16_t>(0x3C00) + raw<std::uint16_t>(0x3F80) +
                           raw<std::int64_t>(-3) + raw<std::int32_t>(4) + raw<std::uint8_t>(255) + raw<std::uint8_t>(1);
  const auto file = put(
      R"({"d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"f":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},
          "h":{"dtype":"F16","shape":[1],"data_offsets":[12,14]},"b":{"dtype":"BF16","shape":[1],"data_offsets":[14,16]},
          "l":{"dtype":"I64","shape":[1],"data_offsets":[16,24]},"i":{"dtype":"I32","shape":[1],"data_offsets":[24,28]},
          "u":{"dtype":"U8","shape":[1],"data_offsets":[28,29]},"t":{"dtype":"BOOL","shape":[1],"data_offsets":[29,30]}})",
      data);
  const auto read = ModelWeights::open(file).value();
  const std::vector<std::pair<const char*, float>> expected = {{"d", 1.5f},  {"f", 2.5f}, {"h", 1.0f},   {"b", 1.0f},
                                                               {"l", -3.0f}, {"i", 4.0f}, {"u", 255.0f}, {"t", 1.0f}};
  for (const auto& [name, value] : expected) EXPECT_EQ(to_f32(*read.find(name)), std::vector<float>{value}) << name;
}

TEST(Half, KnownValues) {
  EXPECT_EQ(half_to_float(0x3C00), 1.0f);
  EXPECT_EQ(half_to_float(0xC000), -2.0f);
  EXPECT_EQ(half_to_float(0x7BFF), 65504.0f);
  EXPECT_EQ(half_to_float(0x0001), std::ldexp(1.0f, -24));
  EXPECT_EQ(half_to_float(0x03FF), 1023.0f * std::ldexp(1.0f, -24));
  EXPECT_TRUE(std::signbit(half_to_float(0x8000)));
  EXPECT_TRUE(std::isinf(half_to_float(0x7C00)));
  EXPECT_TRUE(std::isnan(half_to_float(0x7E00)));
  EXPECT_EQ(bfloat16_to_float(0xC040), -3.0f);
}

TEST_F(ModelWeightsTest, ReadsShards) {
  const std::vector<float> a = {1, 2};
  const std::vector<float> b = {3};
  ASSERT_TRUE(write_safetensors(dir_.path() / "m-1.safetensors", std::vector{safe_tensor<float>("a", "F32", {2}, a)}));
  ASSERT_TRUE(write_safetensors(dir_.path() / "m-2.safetensors", std::vector{safe_tensor<float>("b", "F32", {1}, b)}));
  const auto index = [&](const Json& map) {
    write_json_atomic(dir_.path() / "model.safetensors.index.json",
                      Json{{"metadata", Json::object()}, {"weight_map", map}})
        .value();
    return ModelWeights::open(dir_.path());
  };
  const auto good = index(Json{{"a", "m-1.safetensors"}, {"b", "m-2.safetensors"}}).value();
  EXPECT_EQ(good.files().size(), 2u);
  EXPECT_EQ(to_f32(*good.find("b")), b);
  EXPECT_EQ(good.file_of(*good.find("b")), dir_.path() / "m-2.safetensors");
  EXPECT_EQ(good.find("c"), nullptr);

  expect_error(index(Json{{"a", "m-1.safetensors"}, {"b", "m-1.safetensors"}}), ErrorCode::kCorruptData,
               "'b' is missing");
  expect_error(index(Json{{"a", "m-1.safetensors"}, {"c", "m-2.safetensors"}}), ErrorCode::kCorruptData,
               "'b' is not listed");
  expect_error(index(Json{{"a", "../m-1.safetensors"}}), ErrorCode::kCorruptData, "not a plain file name");
  expect_error(index(Json{{"a", ".."}}), ErrorCode::kCorruptData, "not a plain file name");
  expect_error(index(Json{{"a", 3}}), ErrorCode::kCorruptData, "not a file name");
  expect_error(index(Json{{"a", "absent.safetensors"}}), ErrorCode::kNotFound, "absent.safetensors");
  expect_error(index(Json::object()), ErrorCode::kCorruptData, "no weight_map");
  expect_error(index(Json::array()), ErrorCode::kCorruptData, "no weight_map");
}

TEST(ModelWeights, ReadsMiniLm) {
  const auto weights = ModelWeights::open(testing::minilm_dir()).value();
  const auto* words = weights.find("embeddings.word_embeddings.weight");
  ASSERT_NE(words, nullptr);
  EXPECT_EQ(words->shape, (std::vector<std::int64_t>{30522, 384}));
}

TEST_F(ModelWeightsTest, AbsentFiles) {
  expect_error(ModelWeights::open(dir_.path()), ErrorCode::kNotFound, "neither model.safetensors");
  expect_error(ModelWeights::open(dir_.path() / "x.safetensors"), ErrorCode::kNotFound, "x.safetensors");
}

}  // namespace
}  // namespace tailor
