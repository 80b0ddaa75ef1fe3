#include "infer/label_trie.h"

#include <gtest/gtest.h>

#include "model/test_support.h"

namespace tailor {
namespace {

using Labels = std::vector<std::vector<std::int32_t>>;

TEST(LabelTrie, SharesBeginnings) {
  // root -> 5 -> {6, 7 -> 8}, 9
  const LabelTrie trie = LabelTrie::build(Labels{{5, 7, 8}, {9}, {5, 6}}).value();
  ASSERT_EQ(trie.nodes.size(), 6u);
  EXPECT_EQ(trie.internal_nodes, 3);  // root, 5, 5-7
  EXPECT_EQ(trie.paths, 1);
  EXPECT_EQ(trie.max_depth, 3);
  EXPECT_EQ(trie.order, (std::vector<std::int32_t>{2, 0, 1}));
  EXPECT_EQ(trie.nodes[1].token, 5);
  EXPECT_EQ(trie.nodes[1].label_first, 0);
  EXPECT_EQ(trie.nodes[1].label_last, 2);
  EXPECT_EQ(trie.nodes[2].label, 2);
  EXPECT_EQ(trie.nodes[4].label, 0);
  EXPECT_EQ(trie.nodes[4].depth, 3);
  EXPECT_EQ(trie.nodes[5].label, 1);
}

TEST(LabelTrie, PathsCoverInternalNodesAndNest) {
  const LabelTrie trie = LabelTrie::build(Labels{{1, 2, 3}, {1, 2, 4}, {1, 5, 6}, {7, 8}, {9}}).value();
  EXPECT_EQ(trie.paths, 3);  // 1-2, 1-5, 7
  for (const LabelTrie::Node& node : trie.nodes) {
    if (!node.internal()) continue;
    EXPECT_LT(node.path_first, node.path_last);
    if (node.parent < 0) continue;
    const LabelTrie::Node& parent = trie.nodes[static_cast<std::size_t>(node.parent)];
    EXPECT_GE(node.path_first, parent.path_first);
    EXPECT_LE(node.path_last, parent.path_last);
  }
  EXPECT_EQ(trie.nodes[0].path_last, 3);
}

TEST(LabelTrie, SubsetKeepsIndices) {
  const Labels labels{{1}, {2, 3}, {2, 4}, {5}};
  const LabelTrie trie = LabelTrie::build_subset(labels, std::vector<std::int32_t>{3, 1}).value();
  EXPECT_EQ(trie.order, (std::vector<std::int32_t>{1, 3}));
  EXPECT_EQ(trie.internal_nodes, 2);
}

TEST(LabelTrie, RefusesLabelsThatCannotBeToldApart) {
  const std::vector<std::string> names{"card", "card lost", "top up"};
  testing::expect_error(LabelTrie::build(Labels{{4}, {4, 5}, {6}}, names), ErrorCode::kInvalidArgument,
                        "'card' is the beginning of label 'card lost'");
  testing::expect_error(LabelTrie::build(Labels{{4}, {5}, {4}}, names), ErrorCode::kInvalidArgument,
                        "'card' and 'top up' are the same tokens");
  testing::expect_error(LabelTrie::build(Labels{{4}, {}, {6}}), ErrorCode::kInvalidArgument, "number 1 has no tokens");
  testing::expect_error(LabelTrie::build(Labels{}), ErrorCode::kInvalidArgument, "no labels");
}

}  // namespace
}  // namespace tailor
