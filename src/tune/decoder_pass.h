#pragma once
/// Inside of Decoder: what one pass through the layers needs throughout.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "tune/decoder.h"

namespace tailor::tune::decoder {

/// Virtual tokens of a batch: where they stand, and which they are.
struct SoftRows {
  at::Tensor nodes, ids;  // int64 [k]; undefined: none

  SoftRows() = default;
  SoftRows(const PackedTree& tree, std::int64_t vocabulary, const at::Device& device);
  bool empty() const { return !nodes.defined(); }
};

/// What one pass through the layers needs throughout.
struct Decoder::Pass {
  std::shared_ptr<const PackedTree> tree;
  const DropoutKey* dropout = nullptr;
  SoftRows soft;
  bool in_layers = false;  // the soft prompt has keys and values
  at::Tensor label_nodes;
  bool all_asked = false;
  std::shared_ptr<const AttentionPlan> everywhere, local;

  bool prefix() const { return !soft.empty() && in_layers; }
};

}  // namespace tailor::tune::decoder
