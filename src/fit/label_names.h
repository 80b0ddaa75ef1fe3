#pragma once
/// Labels' names as texts: `card_arrival` says "card arrival", which is one more example of its label. It counts most
/// where a label has few rows; where names say nothing about the texts ("3", "group b") they do harm, so it is
/// measured.

#include <span>
#include <string>
#include <vector>

#include "fit/head_start.h"
#include "learn/logistic_regression.h"

namespace tailor {

/// With more training rows a label than this a name adds nothing, and is not tried.
inline constexpr std::size_t kMostRowsForNames = 32;

/// The words of each label's name: split at what is neither letter nor digit and where "aB" stands, joined by blanks.
/// Empty as a whole where the names are no texts: where one has no word of three letters, or two differ in their digits
/// alone ("label_1", "label_2") or not at all. Bytes outside ASCII count as letters.
std::vector<std::string> label_words(std::span<const std::string> labels);

/// Whether logistic regressions that learn from `names` too have the lower log loss on the rows that `splits` (of
/// `rows`) hold out; `c` as in write_head_start(). False where nothing is held out.
Result<bool> label_names_help(const LabelledVectors& rows, const LabelledVectors& names,
                              std::span<const RowSplit> splits, int classes, double c, int threads,
                              const CancelToken& cancel);

/// The rows of both.
LabelledVectors joined(const LabelledVectors& rows, const LabelledVectors& more);

}  // namespace tailor
