#pragma once
/// Where the classification head of a tuning run starts: at the logistic regression on the untouched encoder's vectors
/// (linear probing, then fine-tuning: Kumar et al., arXiv:2202.10054). A random head pulls the encoder's weights about
/// while it finds its own place; from here training begins at the quality of frozen features.

#include <filesystem>
#include <vector>

#include "fit/method_support.h"

namespace tailor {

struct HeadStart {
  double c = 0;       // as fitted, of the penalty on vectors of mean square length 1
  double score = 0;   // on the validation rows, where C was searched
  double shared = 0;  // seconds another trial spent on the vectors
};

/// Writes `to` with head.weight F32 [labels, dim] and head.bias F32 [labels], for the mean over a text's tokens, not
/// normalised, fitted on `train` (positions in `rows`). C is searched on `validation` where `c` is 0. The vectors are
/// kept in the run's cache.
Result<HeadStart> write_head_start(const TrialContext& context, const ReadyModel& model, const TrialRows& rows,
                                   const std::vector<std::size_t>& train, const std::vector<std::size_t>& validation,
                                   double c, const std::filesystem::path& to);

}  // namespace tailor
