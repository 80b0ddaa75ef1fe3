#include "infer/processor.h"

#include <gtest/gtest.h>

namespace tailor {
namespace {

TEST(Processor, NamesOfInstructionSets) {
  EXPECT_EQ(instruction_set("portable"), InstructionSet::kPortable);
  EXPECT_EQ(instruction_set("avx2"), InstructionSet::kAvx2);
  EXPECT_EQ(instruction_set("avx512"), InstructionSet::kAvx512);
  EXPECT_EQ(instruction_set("vnni"), InstructionSet::kVnni);
  EXPECT_EQ(instruction_set("AVX2"), std::nullopt);
  EXPECT_EQ(instruction_set(""), std::nullopt);
}

TEST(Processor, TheVariableLimitsWhatIsUsed) {
  using enum InstructionSet;
  EXPECT_EQ(used(kVnni, nullptr), kVnni);
  EXPECT_EQ(used(kVnni, "avx2"), kAvx2);
  EXPECT_EQ(used(kVnni, "portable"), kPortable);
  EXPECT_EQ(used(kAvx2, "vnni"), kAvx2);
  EXPECT_EQ(used(kAvx512, "sse9"), kAvx512);
}

}  // namespace
}  // namespace tailor
