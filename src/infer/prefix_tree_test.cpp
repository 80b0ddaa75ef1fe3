#include "infer/prefix_tree.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/rng.h"
#include "core/system.h"
#include "infer/cell_ledger.h"
#include "infer/kept_prefixes.h"

namespace tailor {
namespace {

using Tokens = std::vector<std::int32_t>;

TEST(PrefixTree, FindsTheLongestBeginning) {
  PrefixTree tree;
  tree.insert("a", Tokens{1, 2, 3, 4}, 1);
  tree.insert("a", Tokens{1, 2, 5}, 2);
  tree.insert("a", Tokens{1, 2}, 3);
  tree.insert("b", Tokens{1, 2, 3, 4, 9}, 4);
  EXPECT_EQ(tree.longest("a", Tokens{1, 2, 3, 7}).length, 3u);
  EXPECT_EQ(tree.longest("a", Tokens{1, 2, 3, 7}).entry, 1);
  EXPECT_EQ(tree.longest("a", Tokens{1, 2, 3, 4, 9}).length, 4u);
  EXPECT_EQ(tree.longest("b", Tokens{1, 2, 3, 4, 9}).length, 5u);
  EXPECT_EQ(tree.longest("a", Tokens{7}).entry, -1);
  EXPECT_EQ(tree.longest("c", Tokens{1}).entry, -1);
  // Of a filter, the longest that passes.
  const auto only = [](std::int64_t wanted) { return [wanted](std::int64_t entry) { return entry == wanted; }; };
  EXPECT_EQ(tree.longest("a", Tokens{1, 2, 3, 4}, only(2)).length, 2u);
  EXPECT_EQ(tree.longest("a", Tokens{1, 2, 3, 4}, only(4)).entry, -1);
  EXPECT_TRUE(tree.continued(3));
  EXPECT_FALSE(tree.continued(1));
  EXPECT_EQ(tree.beginnings_of(1), (std::vector<std::int64_t>{3}));
  tree.remove(1);
  EXPECT_EQ(tree.longest("a", Tokens{1, 2, 3, 4}).length, 2u);
  tree.insert("a", Tokens{8}, 2);  // moves
  EXPECT_EQ(tree.longest("a", Tokens{1, 2, 5}).entry, 3);
  EXPECT_EQ(tree.size(), 3u);
}

TEST(PrefixTree, AgreesWithComparingEveryEntry) {
  Rng rng(1);
  PrefixTree tree;
  std::vector<std::pair<std::int64_t, Tokens>> plain;
  const auto some = [&] {
    Tokens t(1 + rng.below(12));
    for (auto& x : t) x = static_cast<std::int32_t>(rng.below(3));
    return t;
  };
  for (std::int64_t id = 0; id < 3000; ++id) {
    if (plain.size() > 40) {
      const std::size_t gone = rng.below(plain.size());
      tree.remove(plain[gone].first);
      plain.erase(plain.begin() + static_cast<std::ptrdiff_t>(gone));
    }
    plain.emplace_back(id, some());
    tree.insert("", plain.back().second, id);
    const Tokens query = some();
    std::size_t longest = 0;
    for (const auto& [other, tokens] : plain) {
      const auto end = std::mismatch(tokens.begin(), tokens.end(), query.begin(), query.end()).first;
      if (other % 2 == 0) longest = std::max(longest, static_cast<std::size_t>(end - tokens.begin()));
    }
    const PrefixTree::Match match = tree.longest("", query, [](std::int64_t entry) { return entry % 2 == 0; });
    ASSERT_EQ(match.length, longest);
    ASSERT_EQ(match.entry >= 0, longest > 0);
    if (match.entry < 0) continue;
    const auto found = std::find_if(plain.begin(), plain.end(), [&](const auto& p) { return p.first == match.entry; });
    ASSERT_TRUE(std::equal(query.begin(), query.begin() + static_cast<std::ptrdiff_t>(longest), found->second.begin()));
  }
}

TEST(CellLedger, CountsSharedCellsOnce) {
  CellLedger ledger;
  CellList a, b;
  ledger.add(a, 10);
  ledger.share(a, 6, b);
  ledger.add(b, 3);
  EXPECT_EQ(ledger.used(), 13u);
  EXPECT_EQ(ledger.own(a), 4u);
  ledger.release(a);
  EXPECT_EQ(ledger.used(), 9u);
  EXPECT_EQ(ledger.own(b), 9u);
  ledger.release(b, 2);
  EXPECT_EQ(ledger.used(), 2u);
  ledger.release(b);
  EXPECT_EQ(ledger.used(), 0u);
}

TEST(PageBytes, GoBackToTheSystemThoughOthersStay) {
  constexpr std::size_t kBytes = std::size_t{1} << 20, kBlocks = 64;
  std::vector<std::unique_ptr<PageBytes>> blocks;
  std::vector<std::unique_ptr<char[]>> between;  // what keeps a heap from shrinking
  for (std::size_t i = 0; i < kBlocks; ++i) {
    blocks.push_back(std::make_unique<PageBytes>(kBytes));
    std::fill_n(blocks.back()->data(), kBytes, std::uint8_t{1});
    between.push_back(std::make_unique<char[]>(64));
  }
  const std::uint64_t all = memory_now().resident;
  for (std::size_t i = 0; i < kBlocks; i += 2) blocks[i].reset();
  EXPECT_LT(memory_now().resident + kBlocks / 2 * kBytes * 3 / 4, all);
  EXPECT_EQ(blocks[1]->data()[kBytes - 1], 1);
  EXPECT_EQ(PageBytes(0).data(), nullptr);
}

TEST(KeptPrefixes, StaysBelowItsBytesAndDropsTheOldest) {
  KeptPrefixes kept(100);
  const auto bytes = [](std::size_t n) { return std::make_shared<const PageBytes>(n); };
  kept.put("", {1, 2, 3}, bytes(40));
  kept.put("", {4, 5}, bytes(40));
  EXPECT_EQ(kept.longest("", Tokens{1, 2, 3, 9}).length, 3u);  // used: the other one is older now
  kept.put("", {6}, bytes(30));
  EXPECT_EQ(kept.bytes(), 70u);
  EXPECT_EQ(kept.longest("", Tokens{4, 5}).length, 0u);
  kept.put("", {1, 2}, bytes(40));  // is held already
  EXPECT_EQ(kept.bytes(), 70u);
  kept.put("", {1, 2, 3, 4}, bytes(50));  // takes the place of its beginning
  EXPECT_EQ(kept.bytes(), 80u);
  EXPECT_EQ(kept.longest("", Tokens{1, 2, 3, 4}).tokens, 4u);
  kept.put("", {7, 7}, bytes(101));
  EXPECT_EQ(kept.bytes(), 80u);
  kept.drop_spaces([](const std::string& space) { return space.empty(); });
  EXPECT_EQ(kept.bytes(), 0u);
}

}  // namespace
}  // namespace tailor
