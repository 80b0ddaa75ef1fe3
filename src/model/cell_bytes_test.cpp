#include "model/cell_bytes.h"

#include <gtest/gtest.h>

#include "model/gguf_writer.h"
#include "model/test_support.h"

namespace tailor {
namespace {

/// A file that says only this of itself.
class CellBytes : public ::testing::Test {
 protected:
  CellBytes() {
    set("general.architecture", GgufValue::string("llama"));
    set("llama.block_count", GgufValue::u32(3));
    set("llama.embedding_length", GgufValue::u32(64));
    set("llama.attention.head_count", GgufValue::u32(4));
  }
  void set(const std::string& key, const GgufValue& value) { writer_.set(key, value); }
  std::uint64_t bytes(std::uint64_t number_bytes = 2) {
    writer_.write(dir_.path() / "m.gguf").value();
    return cell_bytes(GgufFile::open(dir_.path() / "m.gguf").value(), number_bytes);
  }
  TemporaryDirectory dir_{"cell-bytes"};
  GgufWriter writer_;
};

TEST_F(CellBytes, EveryHeadOfEveryLayerHasAKeyAndAValue) {
  EXPECT_EQ(bytes(), 3U * 4 * (16 + 16) * 2);
  EXPECT_EQ(bytes(4), 3U * 4 * (16 + 16) * 4);
}

TEST_F(CellBytes, HeadsMayShareThemAndHaveAWidthOfTheirOwn) {
  set("llama.attention.head_count_kv", GgufValue::u32(2));
  EXPECT_EQ(bytes(), 3U * 2 * (16 + 16) * 2);
  set("llama.attention.key_length", GgufValue::u32(24));
  EXPECT_EQ(bytes(), 3U * 2 * (24 + 16) * 2);
  set("llama.attention.value_length", GgufValue::u32(8));
  EXPECT_EQ(bytes(), 3U * 2 * (24 + 8) * 2);
}

TEST_F(CellBytes, LayersMayDiffer) {
  set("llama.attention.head_count_kv", GgufValue::i32s(std::vector<std::int32_t>{4, 0, 1}));
  EXPECT_EQ(bytes(), (4U + 0 + 1) * (16 + 16) * 2);
}

TEST_F(CellBytes, NoFileMakesItNothing) {
  set("llama.block_count", GgufValue::string("many"));
  set("llama.attention.head_count", GgufValue::u32(0));
  set("llama.attention.key_length", GgufValue::i32s(std::vector<std::int32_t>{-5}));
  EXPECT_GE(bytes(), 1U);
  set("general.architecture", GgufValue::u32(7));
  EXPECT_GE(bytes(), 1U);
}

}  // namespace
}  // namespace tailor
