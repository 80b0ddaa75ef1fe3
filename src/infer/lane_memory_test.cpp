#include "infer/lane_memory.h"

#include <gtest/gtest.h>

#include "infer/test_little_memory.h"
#include "infer/test_models.h"

namespace tailor {
namespace {

using testing::LittleMemory;

TEST(LaneMemory, WhereItCannotGrowItStaysAsItWas) {
  const auto model = LoadedModel::load(testing::tiny_llama(), {}).value();
  constexpr std::size_t kMany = std::size_t{1} << 23;  // 4 GiB of keys and values
  LaneMemory memory(model, {.sequences = 2, .first_cells = 256, .max_cells = kMany, .batch = 64, .f32_cache = true});
  memory.open().value();
  memory.set_threads(1);
  LaneSequence sequence = memory.add_sequence();
  const auto logits_after = [&](std::int32_t token) {
    DecodeBatch batch;
    const int at =
        batch.add(token, static_cast<std::int32_t>(sequence.cells.size()), {sequence.id, sequence.id + 1}, true);
    memory.decode(batch).value();
    memory.extend(sequence, 1);
    const float* logits = llama_get_logits_ith(memory.context(), at);
    return std::vector<float>(logits, logits + model->vocabulary());
  };
  logits_after(7);
  const std::vector<float> expected = logits_after(8);
  memory.cut(sequence, 1);
  {
    const LittleMemory little(std::uint64_t{1} << 30);
    bool lost = false;
    const Result<bool> room = memory.make_room(kMany - 256, lost);
    ASSERT_TRUE(room.has_value()) << to_string(room.error());
    EXPECT_FALSE(*room);
    EXPECT_FALSE(lost);
  }
  EXPECT_EQ(memory.cells(), 256u);
  EXPECT_EQ(memory.used(), 1u);
  EXPECT_EQ(logits_after(8), expected) << "what was there is there";
  bool lost = false;
  EXPECT_TRUE(memory.make_room(300, lost).value());
  EXPECT_FALSE(lost);
  memory.drop(sequence);
  EXPECT_EQ(memory.used(), 0u);
}

TEST(LaneMemory, WhereWhatItHoldsCannotBeCopiedItStaysAsItWas) {
  const auto model = LoadedModel::load(testing::tiny_llama(), {}).value();
  constexpr std::size_t kCells = 4096;  // 2 MiB of keys and values
  LaneMemory memory(model,
                    {.sequences = 2, .first_cells = kCells, .max_cells = 2 * kCells, .batch = 1024, .f32_cache = true});
  memory.open().value();
  memory.set_threads(1);
  LaneSequence sequence = memory.add_sequence();
  const auto add = [&](std::size_t count) {
    DecodeBatch batch;
    for (std::size_t i = 0; i < count; ++i)
      batch.add(7, static_cast<std::int32_t>(sequence.cells.size() + i), {sequence.id, sequence.id + 1}, false);
    memory.decode(batch).value();
    memory.extend(sequence, count);
  };
  for (int i = 0; i < 4; ++i) add(1000);
  {
    const LittleMemory little(std::uint64_t{1} << 20);
    bool lost = false;
    const Result<bool> room = memory.make_room(1000, lost);
    ASSERT_TRUE(room.has_value()) << to_string(room.error());
    EXPECT_FALSE(*room);
    EXPECT_FALSE(lost);
    EXPECT_EQ(memory.save(sequence, 4000), nullptr);
  }
  EXPECT_EQ(memory.cells(), kCells);
  EXPECT_EQ(memory.used(), 4000u);
  bool lost = false;
  EXPECT_TRUE(memory.make_room(1000, lost).value());
  EXPECT_FALSE(lost);
  add(1000);
}

}  // namespace
}  // namespace tailor
