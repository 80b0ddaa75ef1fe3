#include "infer/label_trie.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace tailor {
namespace {

std::string name_of(std::int32_t label, std::span<const std::string> names) {
  const auto i = static_cast<std::size_t>(label);
  return i < names.size() ? fmt::format("'{}'", names[i]) : fmt::format("number {}", label);
}

/// Preorder: paths are numbered from left to right, so every node's paths are a range.
void number_paths(LabelTrie& trie) {
  std::int32_t paths = 0;
  trie.internal_nodes = 0;
  for (std::size_t i = 0; i < trie.nodes.size(); ++i) {
    LabelTrie::Node& node = trie.nodes[i];
    if (!node.internal()) continue;
    ++trie.internal_nodes;
    node.path_first = paths;
    bool last_internal = true;
    for (std::int32_t c = node.first_child; c >= 0; c = trie.nodes[static_cast<std::size_t>(c)].next_sibling) {
      if (trie.nodes[static_cast<std::size_t>(c)].internal()) last_internal = false;
    }
    if (last_internal) node.path_last = ++paths;
  }
  for (std::size_t i = trie.nodes.size(); i-- > 0;) {
    LabelTrie::Node& node = trie.nodes[i];
    if (!node.internal() || node.parent < 0) continue;
    LabelTrie::Node& parent = trie.nodes[static_cast<std::size_t>(node.parent)];
    parent.path_last = std::max(parent.path_last, node.path_last);
  }
  trie.paths = std::max(paths, 1);
}

}  // namespace

Result<LabelTrie> LabelTrie::build(std::span<const std::vector<std::int32_t>> labels,
                                   std::span<const std::string> names) {
  std::vector<std::int32_t> all(labels.size());
  std::iota(all.begin(), all.end(), 0);
  return build_subset(labels, all, names);
}

Result<LabelTrie> LabelTrie::build_subset(std::span<const std::vector<std::int32_t>> labels,
                                          std::span<const std::int32_t> subset, std::span<const std::string> names) {
  if (subset.empty())
    return Error{ErrorCode::kInvalidArgument, "there are no labels to score", "give at least one label"};
  LabelTrie trie;
  trie.order.assign(subset.begin(), subset.end());
  const auto tokens_of = [&](std::int32_t label) -> const std::vector<std::int32_t>& {
    return labels[static_cast<std::size_t>(label)];
  };
  for (const std::int32_t label : trie.order) {
    if (label < 0 || static_cast<std::size_t>(label) >= labels.size()) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("there is no label {}: there are {}", label, labels.size()),
                   ""};
    }
    if (tokens_of(label).empty()) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("label {} has no tokens", name_of(label, names)),
                   "rename the label: it must hold text that the model can read"};
    }
  }
  std::stable_sort(trie.order.begin(), trie.order.end(),
                   [&](std::int32_t a, std::int32_t b) { return tokens_of(a) < tokens_of(b); });

  trie.nodes.emplace_back();
  trie.nodes[0].label_last = static_cast<std::int32_t>(trie.order.size());
  std::vector<std::int32_t> path{0};         // nodes of the current label, root first
  std::vector<std::int32_t> last_child{-1};  // of each node
  for (std::size_t i = 0; i < trie.order.size(); ++i) {
    const std::int32_t label = trie.order[i];
    const std::vector<std::int32_t>& tokens = tokens_of(label);
    std::size_t common = 0;
    if (i > 0) {
      const std::vector<std::int32_t>& previous = tokens_of(trie.order[i - 1]);
      while (common < tokens.size() && common < previous.size() && tokens[common] == previous[common]) ++common;
      // Sorted: where one label begins another at all, two neighbours do.
      if (common == previous.size()) {
        const std::string first = name_of(trie.order[i - 1], names);
        const std::string second = name_of(label, names);
        if (common == tokens.size()) {
          return Error{ErrorCode::kInvalidArgument, fmt::format("labels {} and {} are the same tokens", first, second),
                       "rename one of them"};
        }
        return Error{ErrorCode::kInvalidArgument, fmt::format("label {} is the beginning of label {}", first, second),
                     "score an end token as part of every label"};
      }
    }
    path.resize(common + 1);
    for (std::size_t depth = common; depth < tokens.size(); ++depth) {
      const auto id = static_cast<std::int32_t>(trie.nodes.size());
      const std::int32_t parent = path.back();
      Node node;
      node.token = tokens[depth];
      node.parent = parent;
      node.depth = static_cast<std::int32_t>(depth) + 1;
      node.label_first = static_cast<std::int32_t>(i);
      if (depth + 1 == tokens.size()) node.label = label;
      std::int32_t& youngest = last_child[static_cast<std::size_t>(parent)];
      (youngest < 0 ? trie.nodes[static_cast<std::size_t>(parent)].first_child
                    : trie.nodes[static_cast<std::size_t>(youngest)].next_sibling) = id;
      youngest = id;
      trie.nodes.push_back(node);
      last_child.push_back(-1);
      path.push_back(id);
    }
    for (const std::int32_t id : path)
      trie.nodes[static_cast<std::size_t>(id)].label_last = static_cast<std::int32_t>(i) + 1;
    trie.max_depth = std::max(trie.max_depth, static_cast<std::int32_t>(tokens.size()));
  }
  number_paths(trie);
  return trie;
}

}  // namespace tailor
