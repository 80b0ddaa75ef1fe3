#pragma once
/// Which worked examples go into a prompt.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/rng.h"

namespace tailor {

/// `count` rows at random, stratified: classes in random order, one row of each before any has two. The same seed gives
/// the same rows. `labels`: of the training rows. Fewer rows than `count`: all of them.
std::vector<std::size_t> random_demonstrations(std::span<const std::int32_t> labels, std::size_t count, Rng& rng);

/// The `count` nearest of `neighbours` (nearest first), turned round: the nearest stands last, beside the message.
std::vector<std::size_t> retrieved_demonstrations(std::span<const std::size_t> neighbours, std::size_t count);

/// The distinct labels of the neighbours, ascending. No neighbours: empty, which scorers read as "all labels".
std::vector<std::int32_t> labels_of(std::span<const std::size_t> neighbours, std::span<const std::int32_t> labels);

}  // namespace tailor
