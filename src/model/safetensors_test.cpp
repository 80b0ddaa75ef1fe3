#include "model/safetensors.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "core/json.h"
#include "model/half.h"
#include "model/test_support.h"

namespace tailor {
namespace {

using testing::expect_error;
using testing::raw;

/// A file with this header and so many data bytes.
class SafetensorsTest : public ::testing::Test {
 protected:
  std::filesystem::path put(const std::string& bytes, const std::string& name = "m.safetensors") {
    const auto file = dir_.path() / name;
    write_file_atomic(file, bytes).value();
    return file;
  }
  static std::string bytes_of(const std::string& header, const std::string& data) {
    return raw<std::uint64_t>(header.size()) + header + data;
  }
  void refuses(const std::string& header, const std::string& data, const std::string& part,
               ErrorCode code = ErrorCode::kCorruptData) {
    const auto file = put(bytes_of(header, data));
    const auto result = Safetensors::open(file);
    expect_error(result, code, part);
    expect_error(result, code, file.string());  // every message names the file
  }
  TemporaryDirectory dir_{"safetensors-test"};
};

TEST_F(SafetensorsTest, WritesAndReadsBack) {
  const std::vector<float> a = {1.0f, -2.5f, 3.0f, 0.0f, 1e-30f, -0.0f};
  const std::vector<std::int64_t> ids = {7, -9};
  const auto file = dir_.path() / "m.safetensors";
  const std::vector<SafetensorsOutput> tensors = {
      f32_output("layer.a", {2, 3}, a),
      {"ids", SafetensorsType::kI64, {2}, {reinterpret_cast<const char*>(ids.data()), 16}},
      {"none", SafetensorsType::kF32, {0, 4}, {}},
      {"scalar", SafetensorsType::kF32, {}, {reinterpret_cast<const char*>(a.data()), 4}}};
  ASSERT_TRUE(write_safetensors(file, tensors, {{"format", "pt"}, {"note", "ä"}}));
  const auto read = Safetensors::open(file).value();
  ASSERT_EQ(read.entries().size(), 4u);
  EXPECT_EQ(read.metadata().at("note"), "ä");
  EXPECT_EQ(read.entries()[0].name, "layer.a");
  EXPECT_EQ(read.entries()[0].shape, (std::vector<std::uint64_t>{2, 3}));
  EXPECT_EQ(to_f32(*read.find("layer.a")), a);
  EXPECT_EQ(to_f32(*read.find("ids")), (std::vector<float>{7, -9}));
  EXPECT_TRUE(to_f32(*read.find("none")).empty());
  EXPECT_EQ(to_f32(*read.find("scalar")), (std::vector<float>{1.0f}));
  EXPECT_EQ(read.find("other"), nullptr);
}

TEST_F(SafetensorsTest, ConvertsEveryType) {
  const std::string data = raw(1.5) + raw(2.5f) + raw<std::uint16_t>(0x3C00) + raw<std::uint16_t>(0x3F80) +
                           raw<std::int64_t>(-3) + raw<std::int32_t>(4) + raw<std::uint8_t>(255) + raw<std::uint8_t>(1);
  const auto file = put(bytes_of(
      R"({"d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"f":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},
          "h":{"dtype":"F16","shape":[1],"data_offsets":[12,14]},"b":{"dtype":"BF16","shape":[1],"data_offsets":[14,16]},
          "l":{"dtype":"I64","shape":[1],"data_offsets":[16,24]},"i":{"dtype":"I32","shape":[1],"data_offsets":[24,28]},
          "u":{"dtype":"U8","shape":[1],"data_offsets":[28,29]},"t":{"dtype":"BOOL","shape":[1],"data_offsets":[29,30]}})",
      data));
  const auto read = Safetensors::open(file).value();
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

TEST_F(SafetensorsTest, RefusesTruncatedFilesAtEveryLength) {
  const std::vector<float> a = {1, 2, 3, 4};
  const auto file = dir_.path() / "whole.safetensors";
  ASSERT_TRUE(write_safetensors(file, std::vector{f32_output("a", {4}, a)}));
  const std::string whole = read_file(file).value();
  for (std::size_t n = 0; n < whole.size(); ++n) {
    expect_error(Safetensors::open(put(whole.substr(0, n))), ErrorCode::kCorruptData, "m.safetensors");
  }
  expect_error(Safetensors::open(put(whole + "x")), ErrorCode::kCorruptData, "the file holds 17");
}

TEST_F(SafetensorsTest, RefusesBadHeaders) {
  expect_error(Safetensors::open(put("abc")), ErrorCode::kCorruptData, "too short");
  expect_error(Safetensors::open(put(raw<std::uint64_t>(~0ull) + "{}")), ErrorCode::kCorruptData,
               "the limit is 100000000");
  expect_error(Safetensors::open(put(raw<std::uint64_t>(99) + "{}")), ErrorCode::kCorruptData, "the file has 2 after");
  refuses("{", "", "not valid JSON");
  refuses("[]", "", "not a JSON object");
  refuses(std::string("\xff\xfe{}"), "", "not valid JSON");
  refuses(R"({"a":)" + std::string(100000, '[') + std::string(100000, ']') + "}", "", "nests deeper");
  refuses(R"({"__metadata__":[]})", "", "__metadata__");
  refuses(R"({"__metadata__":{"a":1}})", "", "__metadata__");
}

TEST_F(SafetensorsTest, RefusesBadEntries) {
  const std::string ok = R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  const std::string four(4, '\0');
  refuses("{" + ok + "," + ok + "}", four, "'a' is listed twice");
  refuses(R"({"a":3})", four, "expected an object");
  refuses(R"({"a":{"dtype":"F32","shape":[1]}})", four, "expected an object");
  refuses(R"({"a":{"dtype":1,"shape":[1],"data_offsets":[0,4]}})", four, "dtype is not a string");
  refuses(R"({"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}})", four, "dtype 'F8_E4M3'",
          ErrorCode::kInvalidArgument);
  refuses(R"({"a":{"dtype":"F32","shape":4,"data_offsets":[0,4]}})", four, "shape is not a list");
  refuses(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", four, "not a size");
  refuses(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", four, "not a size");
  refuses(R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,4],"data_offsets":[0,4]}})", four,
          "at most 16");
  refuses(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", four, "too large to exist");
  refuses(R"({"a":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}})", four, "too large to exist");
  refuses(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", four, "not a pair");
  refuses(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", four, "not a pair");
  refuses(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", four, "lie outside");
  refuses(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", four, "lie outside the 4 data bytes");
  refuses(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,3]}})", four, "needs 4 bytes, data_offsets give 3");
}

TEST_F(SafetensorsTest, RefusesOverlapsAndGaps) {
  const std::string eight(8, '\0');
  refuses(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
      eight, "it overlaps another");
  refuses(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", eight, "there is a gap");
  refuses(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", eight,
          "the tensors take 4 data bytes, the file holds 8");
}

TEST_F(SafetensorsTest, AcceptsUnalignedTensors) {
  const auto file = put(bytes_of(
      R"({"u":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})",
      raw<std::uint8_t>(3) + raw(7.0f)));
  EXPECT_EQ(to_f32(*Safetensors::open(file).value().find("f")), std::vector<float>{7.0f});
}

TEST_F(SafetensorsTest, AbsentFilesAndDirectories) {
  expect_error(Safetensors::open(dir_.path() / "none.safetensors"), ErrorCode::kNotFound, "none.safetensors");
  expect_error(Safetensors::open(dir_.path()), ErrorCode::kNotFound, "neither model.safetensors");
}

TEST_F(SafetensorsTest, ReadsShards) {
  const std::vector<float> a = {1, 2};
  const std::vector<float> b = {3};
  ASSERT_TRUE(write_safetensors(dir_.path() / "m-1.safetensors", std::vector{f32_output("a", {2}, a)}));
  ASSERT_TRUE(write_safetensors(dir_.path() / "m-2.safetensors", std::vector{f32_output("b", {1}, b)}));
  const auto index = [&](const Json& map) {
    write_json_atomic(dir_.path() / "model.safetensors.index.json",
                      Json{{"metadata", Json::object()}, {"weight_map", map}})
        .value();
    return Safetensors::open(dir_.path());
  };
  const auto good = index(Json{{"a", "m-1.safetensors"}, {"b", "m-2.safetensors"}}).value();
  EXPECT_EQ(good.files().size(), 2u);
  EXPECT_EQ(to_f32(*good.find("b")), b);
  EXPECT_EQ(good.find("b")->shard, 1u);

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

TEST_F(SafetensorsTest, WriterRefusesWhatDoesNotFit) {
  const std::vector<float> a = {1, 2, 3};
  const auto file = dir_.path() / "w.safetensors";
  expect_error(write_safetensors(file, std::vector{f32_output("a", {4}, a)}), ErrorCode::kInvalidArgument,
               "do not fill");
  expect_error(write_safetensors(file, std::vector{f32_output("a", {3}, a), f32_output("a", {3}, a)}),
               ErrorCode::kInvalidArgument, "is taken");
  EXPECT_FALSE(std::filesystem::exists(file));
  EXPECT_FALSE(write_safetensors(dir_.path() / "no" / "w.safetensors", std::vector{f32_output("a", {3}, a)}));
}

TEST(Safetensors, ReadsMiniLm) {
  const auto weights = Safetensors::open(testing::minilm_dir()).value();
  const auto* words = weights.find("embeddings.word_embeddings.weight");
  ASSERT_NE(words, nullptr);
  EXPECT_EQ(words->shape, (std::vector<std::uint64_t>{30522, 384}));
}

}  // namespace
}  // namespace tailor
