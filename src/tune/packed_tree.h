#pragma once
/// Rows packed without padding, as a tree of tokens: what rows have in common from their first token on is held, and
/// computed, once. Because attention is causal, a token's state depends on its path from the root alone, so the tree's
/// losses and gradients are exactly those of the separate rows (the instruction before every message is the usual
/// case; identical rows and a trie of labels are others).

#include <cstdint>
#include <span>
#include <vector>

namespace tailor::tune::decoder {

/// A run of tokens [begin, begin + length) of the packed batch that continues its parent's last token. Parents stand
/// before their children, and segments cover the tokens in order.
struct TreeSegment {
  std::int64_t begin = 0;
  std::int64_t length = 0;
  std::int64_t offset = 0;   // position of the first token, which is the number of tokens on the path before it
  std::int32_t parent = -1;  // index of the segment before it on the path; -1: none
};

/// "After the token of label_nodes[node], row `row` goes on with `token`", which is what the loss is about.
struct LabelTarget {
  std::int32_t node = 0;
  std::int32_t token = 0;
  std::int32_t row = 0;
};

/// One row: mask[i] = 1 where token i is learnt (the first token never is). Borrowed for the call.
struct SequenceView {
  std::span<const std::int32_t> tokens;
  std::span<const std::uint8_t> mask;  // as long as tokens, or empty: all but the first are learnt
};

enum class Sharing : std::uint8_t {
  kNone,  // every row on its own
  kTree,  // equal beginnings once
};

/// Tokens after the last learnt one, and the last learnt one itself, need no computation and are left out; rows that
/// learn nothing are left out altogether.
struct PackedTree {
  std::vector<std::int32_t> tokens;     // [N]
  std::vector<std::int64_t> positions;  // [N], on the path
  std::vector<TreeSegment> segments;
  std::vector<std::int32_t> segment_rows;  // [segments] one of the rows that pass through it
  std::vector<std::int32_t> row_ends;      // [rows] segment in which the row's path ends; -1: the row is left out
  std::vector<std::int64_t> label_nodes;   // tokens whose logits are needed, rising
  std::vector<LabelTarget> targets;        // ordered by node
  std::int64_t row_tokens = 0;             // sum of the lengths of the rows as given
  std::int64_t max_path = 0;               // longest path in tokens

  std::int64_t size() const { return static_cast<std::int64_t>(tokens.size()); }
};

PackedTree pack_tree(std::span<const SequenceView> rows, Sharing sharing);

/// Which tokens ask in attention: queries [begin[s], begin[s + 1]) belong to segment s and stand at `position` on
/// their path (rising inside a segment).
struct QuerySet {
  std::vector<std::int64_t> begin;
  std::vector<std::int64_t> position;
  std::int64_t size() const { return static_cast<std::int64_t>(position.size()); }
};
QuerySet all_queries(const PackedTree& tree);
QuerySet label_queries(const PackedTree& tree);  // tree.label_nodes only

}  // namespace tailor::tune::decoder
