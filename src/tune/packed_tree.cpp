#include "tune/packed_tree.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace tailor::tune::decoder {
namespace {

struct Row {
  std::span<const std::int32_t> input;  // up to, without, the last learnt token
  SequenceView view;
  std::int32_t index = 0;
};

bool learnt(const SequenceView& row, std::size_t i) {
  return i > 0 && (row.mask.empty() || row.mask[i] != 0);
}

class Builder {
 public:
  explicit Builder(PackedTree& tree) : tree_(tree) {}

  /// Rows [lo, hi) (sorted) agree on their first `depth` tokens, which are in the tree already.
  void add(std::span<const Row> rows, std::size_t depth, std::int32_t parent) {
    // Rows that end here come first in the order.
    for (; !rows.empty() && rows.front().input.size() == depth; rows = rows.subspan(1))
      tree_.row_ends[static_cast<std::size_t>(rows.front().index)] = parent;
    while (!rows.empty()) {
      const std::int32_t head = rows.front().input[depth];
      std::size_t n = 1;
      while (n < rows.size() && rows[n].input[depth] == head) ++n;
      add_branch(rows.first(n), depth, parent);
      rows = rows.subspan(n);
    }
  }

  /// Rows with the same token at `depth`.
  void add_branch(std::span<const Row> rows, std::size_t depth, std::int32_t parent) {
    const auto& first = rows.front().input;
    const auto& last = rows.back().input;
    std::size_t end = depth + 1;
    while (end < first.size() && end < last.size() && first[end] == last[end]) ++end;
    TreeSegment segment;
    segment.begin = tree_.size();
    segment.length = static_cast<std::int64_t>(end - depth);
    segment.offset = static_cast<std::int64_t>(depth);
    segment.parent = parent;
    const auto id = static_cast<std::int32_t>(tree_.segments.size());
    tree_.segments.push_back(segment);
    tree_.segment_rows.push_back(rows.front().index);
    for (std::size_t i = depth; i < end; ++i) {
      tree_.tokens.push_back(first[i]);
      tree_.positions.push_back(static_cast<std::int64_t>(i));
    }
    tree_.max_path = std::max(tree_.max_path, static_cast<std::int64_t>(end));
    for (const Row& row : rows) {
      for (std::size_t i = depth; i < end; ++i) {
        if (!learnt(row.view, i + 1)) continue;
        const std::int64_t node = segment.begin + static_cast<std::int64_t>(i - depth);
        found_.push_back({node, {0, row.view.tokens[i + 1], row.index}});
      }
    }
    add(rows, end, id);
  }

  void finish() {
    std::stable_sort(found_.begin(), found_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (auto& [node, target] : found_) {
      if (tree_.label_nodes.empty() || tree_.label_nodes.back() != node) tree_.label_nodes.push_back(node);
      target.node = static_cast<std::int32_t>(tree_.label_nodes.size() - 1);
      tree_.targets.push_back(target);
    }
  }

 private:
  PackedTree& tree_;
  std::vector<std::pair<std::int64_t, LabelTarget>> found_;
};

}  // namespace

PackedTree pack_tree(std::span<const SequenceView> rows, Sharing sharing) {
  PackedTree tree;
  std::vector<Row> work;
  work.reserve(rows.size());
  tree.row_ends.assign(rows.size(), -1);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const SequenceView& view = rows[r];
    tree.row_tokens += static_cast<std::int64_t>(view.tokens.size());
    std::size_t last = view.tokens.size();
    while (last > 0 && !learnt(view, last - 1)) --last;
    if (last == 0) continue;
    work.push_back({view.tokens.first(last - 1), view, static_cast<std::int32_t>(r)});
  }
  Builder builder(tree);
  if (sharing == Sharing::kTree) {
    std::stable_sort(work.begin(), work.end(), [](const Row& a, const Row& b) {
      return std::lexicographical_compare(a.input.begin(), a.input.end(), b.input.begin(), b.input.end());
    });
    builder.add(work, 0, -1);
  } else {
    for (const Row& row : work) builder.add_branch(std::span(&row, 1), 0, -1);
  }
  builder.finish();
  return tree;
}

QuerySet all_queries(const PackedTree& tree) {
  QuerySet queries;
  for (const TreeSegment& s : tree.segments) queries.begin.push_back(s.begin);
  queries.begin.push_back(tree.size());
  queries.position = tree.positions;
  return queries;
}

QuerySet label_queries(const PackedTree& tree) {
  QuerySet queries;
  const auto& nodes = tree.label_nodes;
  for (const TreeSegment& s : tree.segments) {
    queries.begin.push_back(std::lower_bound(nodes.begin(), nodes.end(), s.begin) - nodes.begin());
  }
  queries.begin.push_back(static_cast<std::int64_t>(nodes.size()));
  for (const std::int64_t node : nodes) queries.position.push_back(tree.positions[static_cast<std::size_t>(node)]);
  return queries;
}

}  // namespace tailor::tune::decoder
