#include "tune/packed_tree.h"

#include <gtest/gtest.h>

#include <set>

namespace tailor::tune::decoder {
namespace {

using Tokens = std::vector<std::int32_t>;
using Mask = std::vector<std::uint8_t>;

/// The tokens from the root to one node.
Tokens path(const PackedTree& tree, std::int64_t node) {
  std::size_t s = 0;
  while (tree.segments[s].begin + tree.segments[s].length <= node) ++s;
  Tokens back;
  for (auto i = static_cast<std::int32_t>(s); i >= 0; i = tree.segments[static_cast<std::size_t>(i)].parent) {
    const TreeSegment& t = tree.segments[static_cast<std::size_t>(i)];
    for (std::int64_t n = std::min(node, t.begin + t.length - 1); n >= t.begin; --n) {
      back.push_back(tree.tokens[static_cast<std::size_t>(n)]);
    }
  }
  return {back.rbegin(), back.rend()};
}

struct Rows {
  std::vector<Tokens> tokens;
  std::vector<Mask> masks;
  std::vector<SequenceView> views() const {
    std::vector<SequenceView> v;
    for (std::size_t i = 0; i < tokens.size(); ++i) v.push_back({tokens[i], masks[i]});
    return v;
  }
};

Rows example() {
  return {{{1, 2, 3, 4, 9}, {1, 2, 3, 5, 9, 8}, {1, 2, 3, 4, 9}, {1, 2}, {7, 7, 7}, {1, 2, 3}},
          {{0, 0, 0, 0, 1}, {0, 0, 0, 0, 1, 1}, {0, 0, 0, 0, 1}, {0, 1}, {0, 0, 0}, {1, 0, 1}}};
}

TEST(PackTree, EveryTargetStandsAfterItsOwnPath) {
  const Rows rows = example();
  for (const Sharing sharing : {Sharing::kNone, Sharing::kTree}) {
    const PackedTree tree = pack_tree(rows.views(), sharing);
    std::multiset<std::pair<Tokens, std::int32_t>> expected, seen;
    for (std::size_t r = 0; r < rows.tokens.size(); ++r) {
      for (std::size_t i = 1; i < rows.tokens[r].size(); ++i) {
        if (rows.masks[r][i] == 0) continue;
        const auto n = static_cast<std::ptrdiff_t>(i);
        expected.insert({Tokens(rows.tokens[r].begin(), rows.tokens[r].begin() + n), rows.tokens[r][i]});
      }
    }
    for (const LabelTarget& t : tree.targets) {
      const std::int64_t node = tree.label_nodes[static_cast<std::size_t>(t.node)];
      seen.insert({path(tree, node), t.token});
      EXPECT_EQ(static_cast<std::size_t>(tree.positions[static_cast<std::size_t>(node)]) + 1, path(tree, node).size());
    }
    EXPECT_EQ(seen, expected);
  }
}

TEST(PackTree, SharesBeginningsOnce) {
  const PackedTree tree = pack_tree(example().views(), Sharing::kTree);
  // 1 | 2 | 3-less rows end early; below 1 2 3: 4, and 5 9. The row that learns nothing is not there.
  EXPECT_EQ(tree.size(), 6);
  EXPECT_EQ(tree.row_tokens, 24);
  EXPECT_EQ(tree.max_path, 5);
  // Two equal rows ask at one node.
  EXPECT_EQ(tree.targets.size(), 6u);
  EXPECT_EQ(tree.label_nodes.size(), 5u);
  EXPECT_EQ(pack_tree(example().views(), Sharing::kNone).size(), 4 + 5 + 4 + 1 + 2);
}

TEST(PackTree, NothingLearntIsAnEmptyTree) {
  const Tokens tokens = {1, 2};
  const Mask mask = {1, 0};  // a first token has nothing before it
  const SequenceView row{tokens, mask};
  EXPECT_EQ(pack_tree({&row, 1}, Sharing::kTree).size(), 0);
  const SequenceView none{};
  EXPECT_EQ(pack_tree({&none, 1}, Sharing::kTree).size(), 0);
}

TEST(PackTree, WithoutMaskAllButTheFirstAreLearnt) {
  const Tokens tokens = {1, 2, 3};
  const SequenceView row{tokens, {}};
  const PackedTree tree = pack_tree({&row, 1}, Sharing::kTree);
  EXPECT_EQ(tree.size(), 2);
  EXPECT_EQ(tree.targets.size(), 2u);
}

}  // namespace
}  // namespace tailor::tune::decoder
