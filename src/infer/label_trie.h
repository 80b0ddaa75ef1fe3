#pragma once
/// Labels as token sequences, merged where they begin alike: each shared beginning is computed once.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"

namespace tailor {

/// A value type. Nodes stand in preorder: a node's parent and its whole path come before it. Node 0 is the root (the
/// prompt's last token). A node with children is *internal*: the model must be run on it to know what follows.
struct LabelTrie {
  struct Node {
    std::int32_t token = -1;
    std::int32_t parent = -1;
    std::int32_t depth = 0;         // tokens from the root
    std::int32_t first_child = -1;  // -1: a leaf
    std::int32_t next_sibling = -1;
    std::int32_t label = -1;       // leaves: index of the label
    std::int32_t label_first = 0;  // labels below are order[label_first … label_last)
    std::int32_t label_last = 0;
    std::int32_t path_first = 0;  // paths below, [path_first, path_last): see paths
    std::int32_t path_last = 0;
    bool internal() const { return first_child >= 0; }
  };
  std::vector<Node> nodes;
  std::vector<std::int32_t> order;  // labels in the order of their leaves
  std::int32_t paths = 1;           // internal nodes without internal children (the root where there is no other): one
                                    // sequence each covers all internal nodes
  std::int32_t internal_nodes = 1;  // with the root
  std::int32_t max_depth = 0;       // tokens of the longest label

  /// No label may be empty, equal another, or be the beginning of another (then an end token must be part of all);
  /// the error names the labels by index, or by name where names are given.
  static Result<LabelTrie> build(std::span<const std::vector<std::int32_t>> labels,
                                 std::span<const std::string> names = {});
  /// The same over a subset: `label` and `order` keep the indices of the whole list.
  static Result<LabelTrie> build_subset(std::span<const std::vector<std::int32_t>> labels,
                                        std::span<const std::int32_t> subset, std::span<const std::string> names = {});
};

}  // namespace tailor
