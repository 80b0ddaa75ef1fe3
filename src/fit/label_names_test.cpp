#include "fit/label_names.h"

#include <gtest/gtest.h>

#include "core/rng.h"

namespace tailor {
namespace {

using Names = std::vector<std::string>;

Names words(const Names& labels) {
  return label_words(labels);
}

TEST(LabelNames, AreSplitIntoWords) {
  EXPECT_EQ(words({"card_arrival", "topUpFailed", "Refund-not showing.up", "exchange/rate", "ATM_support", "café"}),
            (Names{"card arrival", "top Up Failed", "Refund not showing up", "exchange rate", "ATM support", "café"}));
  EXPECT_EQ(words({"__late__", "iso9001 audit"}), (Names{"late", "iso9001 audit"}));
}

TEST(LabelNames, AreNoneWhereTheyTellNothing) {
  EXPECT_EQ(words({"0", "1"}), Names());
  EXPECT_EQ(words({"yes", "no"}), Names());  // one of them has no word of three letters
  EXPECT_EQ(words({"label_1", "label_2"}), Names());
  EXPECT_EQ(words({"Card lost", "card_lost"}), Names());
  EXPECT_EQ(words({"card", "-"}), Names());
  EXPECT_EQ(words({}), Names());
}

/// Three labels along three axes, `per_label` noisy rows each.
LabelledVectors rows_around_axes(std::size_t per_label, double noise) {
  Rng rng(5);
  LabelledVectors out{Matrix(3 * per_label, 3), {}};
  for (std::size_t i = 0; i < 3 * per_label; ++i) {
    for (std::size_t d = 0; d < 3; ++d)
      out.x.row(i)[d] = static_cast<float>((d == i % 3 ? 1 : 0) + noise * rng.normal());
    out.labels.push_back(static_cast<int>(i % 3));
  }
  return out;
}

/// Names of the labels that lie on the axes, each `shift` labels further.
LabelledVectors names_on_axes(std::size_t shift) {
  LabelledVectors out{Matrix(3, 3), {0, 1, 2}};
  for (std::size_t l = 0; l < 3; ++l) out.x.row(l)[(l + shift) % 3] = 1;
  return out;
}

TEST(LabelNames, HelpWhereTheyLieAmongTheTextsOfTheirLabels) {
  const LabelledVectors rows = rows_around_axes(20, 0.4);
  std::vector<RowSplit> splits;
  for (std::size_t f = 0; f < 2; ++f) {  // six rows to learn from, the rest held out
    RowSplit& split = splits.emplace_back();
    for (std::size_t i = 0; i < rows.labels.size(); ++i) (i / 6 == f ? split.train : split.validation).push_back(i);
  }
  const CancelToken never;
  const auto help = [&](std::size_t shift, std::span<const RowSplit> some) {
    return label_names_help(rows, names_on_axes(shift), some, 3, 10, 1, never).value();
  };
  EXPECT_TRUE(help(0, splits));
  EXPECT_FALSE(help(1, splits));  // every name is another label's
  EXPECT_FALSE(help(0, {}));
  CancelToken cancelled;
  cancelled.cancel();
  EXPECT_FALSE(label_names_help(rows, names_on_axes(0), splits, 3, 10, 1, cancelled));
}

TEST(LabelNames, JoinedRowsAreThoseOfBoth) {
  const LabelledVectors both = joined(rows_around_axes(2, 0), names_on_axes(1));
  EXPECT_EQ(both.labels, (std::vector<int>{0, 1, 2, 0, 1, 2, 0, 1, 2}));
  ASSERT_EQ(both.x.rows, 9u);
  EXPECT_EQ(both.x.data.size(), 27u);
  EXPECT_EQ(both.x.row(6)[1], 1.0f);
  EXPECT_EQ(joined({}, names_on_axes(0)).x.cols, 3u);
}

}  // namespace
}  // namespace tailor
