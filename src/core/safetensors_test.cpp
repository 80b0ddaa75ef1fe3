#include "core/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "core/files.h"

namespace tailor {
namespace {

template <typename T>
std::string raw(T value) {
  std::string out(sizeof value, '\0');
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}

/// The result is an error of this code whose message holds `part`.
template <typename R>
void expect_error(const R& result, ErrorCode code, const std::string& part) {
  ASSERT_FALSE(result.has_value()) << "expected an error with: " << part;
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_NE(result.error().message.find(part), std::string::npos)
      << "message: " << result.error().message << "\nexpected: " << part;
}

SafeTensor f32(std::string name, std::vector<std::int64_t> shape, const std::vector<float>& values) {
  return safe_tensor<float>(std::move(name), "F32", std::move(shape), values);
}
std::vector<float> floats(const SafeTensor* tensor) {
  std::vector<float> out(tensor->bytes.size() / sizeof(float));
  if (!out.empty()) std::memcpy(out.data(), tensor->bytes.data(), tensor->bytes.size());
  return out;
}

/// A file with this header and so many data bytes.
class SafetensorsTest : public ::testing::Test {
 protected:
  std::filesystem::path put(const std::string& bytes, const std::string& name = "m.safetensors") {
    const auto file = dir_.path() / name;
    std::ofstream(file, std::ios::binary) << bytes;  // many files: no wait for the disk
    return file;
  }
  static std::string bytes_of(const std::string& header, const std::string& data) {
    return raw<std::uint64_t>(header.size()) + header + data;
  }
  void refuses(const std::string& header, const std::string& data, const std::string& part,
               ErrorCode code = ErrorCode::kCorruptData) {
    const auto file = put(bytes_of(header, data));
    const auto result = SafetensorsFile::open(file);
    expect_error(result, code, part);
    expect_error(result, code, file.string());  // every message names the file
  }
  TemporaryDirectory dir_{"safetensors-test"};
};

TEST_F(SafetensorsTest, WritesAndReadsBack) {
  const std::vector<float> a = {1.0f, -2.5f, 3.0f, 0.0f, 1e-30f, -0.0f};
  const std::vector<std::int64_t> ids = {7, -9};
  const auto file = dir_.path() / "m.safetensors";
  const std::vector<SafeTensor> tensors = {f32("layer.a", {2, 3}, a),
                                           safe_tensor<std::int64_t>("ids", "I64", {2}, ids),
                                           {"none", "F32", {0, 4}, {}},
                                           {"scalar", "F32", {}, std::string_view("\0\0\x80\x3f", 4)}};
  ASSERT_TRUE(write_safetensors(file, tensors, {{"format", "pt"}, {"note", "ä"}}));
  const auto read = SafetensorsFile::open(file).value();
  ASSERT_EQ(read.tensors().size(), 4u);
  EXPECT_EQ(read.metadata().at("note"), "ä");
  EXPECT_EQ(read.tensors()[0].name, "layer.a");
  EXPECT_EQ(read.tensors()[0].shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(floats(read.find("layer.a")), a);
  EXPECT_EQ(read.find("ids")->bytes, tensors[1].bytes);
  EXPECT_EQ(read.find("none")->elements(), 0);
  EXPECT_EQ(floats(read.find("scalar")), std::vector<float>{1.0f});
  EXPECT_EQ(read.find("other"), nullptr);
}

TEST_F(SafetensorsTest, RefusesTruncatedFilesAtEveryLength) {
  const std::vector<float> a = {1, 2, 3, 4};
  const auto file = dir_.path() / "whole.safetensors";
  ASSERT_TRUE(write_safetensors(file, std::vector{f32("a", {4}, a)}));
  const std::string whole = read_file(file).value();
  for (std::size_t n = 0; n < whole.size(); ++n) {
    expect_error(SafetensorsFile::open(put(whole.substr(0, n))), ErrorCode::kCorruptData, "m.safetensors");
  }
  expect_error(SafetensorsFile::open(put(whole + "x")), ErrorCode::kCorruptData, "the file holds 17");
}

TEST_F(SafetensorsTest, RefusesBadHeaders) {
  expect_error(SafetensorsFile::open(put("abc")), ErrorCode::kCorruptData, "only 3 bytes");
  expect_error(SafetensorsFile::open(put(raw<std::uint64_t>(~0ull) + "{}")), ErrorCode::kCorruptData,
               "the limit is 100000000");
  expect_error(SafetensorsFile::open(put(raw<std::uint64_t>(99) + "{}")), ErrorCode::kCorruptData,
               "claims 99 bytes, the file has 10");
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
  refuses(R"({"a":3})", four, "needs dtype, shape and data_offsets");
  refuses(R"({"a":{"dtype":"F32","shape":[1]}})", four, "needs dtype, shape and data_offsets");
  refuses(R"({"a":{"dtype":1,"shape":[1],"data_offsets":[0,4]}})", four, "a dtype that is no string");
  refuses(R"({"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}})", four, "unknown type 'F8_E4M3'");
  refuses(R"({"a":{"dtype":"F32","shape":4,"data_offsets":[0,4]}})", four, "a shape that is no list");
  refuses(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", four, "something other than sizes");
  refuses(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", four, "something other than sizes");
  refuses(R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,4],"data_offsets":[0,4]}})", four,
          "at most 16");
  refuses(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", four, "too large to exist");
  refuses(R"({"a":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}})", four, "too large to exist");
  refuses(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", four, "no pair of byte positions");
  refuses(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", four, "no pair of byte positions");
  refuses(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", four, "lies outside");
  refuses(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", four, "lies outside the file's 4 data bytes");
  refuses(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,3]}})", four, "has 3 bytes, its shape [1] needs 4");
}

TEST_F(SafetensorsTest, RefusesOverlapsAndGaps) {
  const std::string eight(8, '\0');
  refuses(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
      eight, "it overlaps another");
  refuses(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", eight, "there is a gap");
  refuses(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", eight,
          "its tensors take 4 data bytes, the file holds 8");
}

TEST_F(SafetensorsTest, AcceptsUnalignedTensors) {
  const auto file = put(bytes_of(
      R"({"u":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})",
      raw<std::uint8_t>(3) + raw(7.0f)));
  const auto read = SafetensorsFile::open(file).value();
  EXPECT_EQ(floats(read.find("f")), std::vector<float>{7.0f});
}

TEST_F(SafetensorsTest, AbsentFilesAndDirectories) {
  expect_error(SafetensorsFile::open(dir_.path() / "none.safetensors"), ErrorCode::kNotFound, "none.safetensors");
  EXPECT_FALSE(SafetensorsFile::open(dir_.path()));
}

TEST_F(SafetensorsTest, WriterRefusesWhatDoesNotFit) {
  const std::vector<float> a = {1, 2, 3};
  const auto file = dir_.path() / "w.safetensors";
  expect_error(write_safetensors(file, std::vector{f32("a", {4}, a)}), ErrorCode::kInvalidArgument,
               "do not fill F32 [4]");
  expect_error(write_safetensors(file, std::vector{f32("a", {3}, a), f32("a", {3}, a)}), ErrorCode::kInvalidArgument,
               "is taken");
  EXPECT_FALSE(std::filesystem::exists(file));
  EXPECT_FALSE(write_safetensors(dir_.path() / "no" / "w.safetensors", std::vector{f32("a", {3}, a)}));
}

}  // namespace
}  // namespace tailor
