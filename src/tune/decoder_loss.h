#pragma once
/// The end of a decoder: final norm, output layer and cross entropy, some rows at a time.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "tune/decoder_functions.h"
#include "tune/decoder_weights.h"
#include "tune/packed_tree.h"

namespace tailor::tune::decoder {

struct LossHead {
  DecoderWeights& weights;
  NormSpec norm;
};

constexpr std::int64_t kLabelSlice = 64;  // label nodes whose logits are in memory at once

/// hidden [n, hidden] -> [n, vocab].
at::Tensor logits_of(const LossHead& head, const at::Tensor& hidden);
/// Cross entropy of every target of the tree, whose label nodes are the rows of `hidden`. With `dhidden` also the
/// gradient of sum(target_weights[t] * loss[t]): that of hidden, and those of the output layer and the norm are added
/// to theirs. With `likeliest` also, for each target, whether no other token is likelier (1, else 0).
std::vector<float> losses_of(const LossHead& head, const at::Tensor& hidden, const PackedTree& tree,
                             std::span<const float> target_weights, at::Tensor* dhidden,
                             std::vector<std::uint8_t>* likeliest = nullptr);

}  // namespace tailor::tune::decoder
