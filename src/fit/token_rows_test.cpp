#include "fit/token_rows.h"

#include <gtest/gtest.h>

namespace tailor {
namespace {

TEST(TokenRows, BlocksComeInOrderOnAnyNumberOfThreads) {
  TokenFile empty;
  empty.n_labels = 1;
  empty.vocab_size = 100000;
  const auto make = [](std::size_t row, TokenFile& block) -> Status {
    block.tokens.insert(block.tokens.end(), row % 3 + 1, static_cast<std::int32_t>(row));
    end_row(block, 0, TokenPart::kTrain, static_cast<std::int64_t>(row));
    return {};
  };
  for (const std::size_t rows : {0u, 1u, 4096u, 4097u, 30000u}) {
    for (const int threads : {1, 2, 5}) {
      std::size_t seen = 0, blocks = 0;
      make_token_rows(rows, threads, empty, make, [&](TokenFile& block) -> Status {
        ++blocks;
        EXPECT_EQ(block.vocab_size, 100000);
        for (std::size_t i = 0; i < block.rows(); ++i, ++seen) {
          EXPECT_EQ(block.row_ids[i], static_cast<std::int64_t>(seen));
          EXPECT_EQ(block.row(i).size(), seen % 3 + 1);
          EXPECT_EQ(block.row(i)[0], static_cast<std::int32_t>(seen));
        }
        return {};
      }).value();
      EXPECT_EQ(seen, rows);
      EXPECT_EQ(blocks, std::max<std::size_t>(1, (rows + 4095) / 4096));
    }
  }
}

TEST(TokenRows, TheFirstErrorInTheOrderOfTheRowsIsTold) {
  const auto failing = [](std::size_t row, TokenFile& block) -> Status {
    if (row == 5000 || row == 9000) return Error{ErrorCode::kInvalidArgument, "row " + std::to_string(row), ""};
    block.tokens.push_back(1);
    end_row(block, 0, TokenPart::kTrain, static_cast<std::int64_t>(row));
    return {};
  };
  for (const int threads : {1, 2, 4}) {
    const auto done = make_token_rows(20000, threads, TokenFile(), failing, [](TokenFile&) { return Status(); });
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().message, "row 5000");
  }
  const auto full = make_token_rows(10, 2, TokenFile(), failing, [](TokenFile&) -> Status {
    return Error{ErrorCode::kIo, "the disk is full", ""};
  });
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().message, "the disk is full");
}

}  // namespace
}  // namespace tailor
