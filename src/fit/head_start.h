#pragma once
/// Where the classification head of a tuning run starts: at the logistic regression on the untouched encoder's vectors
/// (linear probing, then fine-tuning: Kumar et al., arXiv:2202.10054). A random head pulls the encoder's weights about
/// while it finds its own place; from here training begins at the quality of frozen features.

#include <filesystem>
#include <span>
#include <vector>

#include "core/safetensors.h"
#include "fit/method_support.h"

namespace tailor {

struct HeadStart {
  double c = 0;                // as fitted, of the penalty on vectors of mean square length 1
  std::vector<int> predicted;  // for the rows that were held out, where C was searched
};

/// Vectors (the mean over a text's tokens) and their labels.
struct LabelledVectors {
  Matrix x;  // [rows, dim]
  std::vector<int> labels;
};

/// The file of core/head_file.h.
Status write_head_file(const std::filesystem::path& to, std::span<const SafeTensor> tensors, bool unit_vectors);

/// Writes `to` with head.weight F32 [labels, dim] and head.bias F32 [labels], fitted on `train`. C is searched on
/// `held_out` where `c` is 0. `unit_vectors`: the vectors have length 1, and the head is for such.
Result<HeadStart> write_head_start(const LabelledVectors& train, const LabelledVectors& held_out, int classes, double c,
                                   int threads, const ProgressFn& progress, const CancelToken& cancel,
                                   bool unit_vectors, const std::filesystem::path& to);

}  // namespace tailor
