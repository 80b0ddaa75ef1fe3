#pragma once
/// The linear classification head, and what its models share: first values, labels, probabilities.

#include <cstdint>
#include <span>
#include <vector>

#include "core/head_file.h"
#include "core/token_file.h"
#include "tune/encoder_functions.h"
#include "tune/parameters.h"
#include "tune/settings.h"
#include "tune/trainable_model.h"

namespace tailor::tune {

// Streams of the run's random numbers (core/rng.h): numbers never change, or old runs could not be repeated.
inline constexpr std::uint64_t kInitialValuesStream = 1, kHeadStream = 2, kOrderStream = 3, kDropoutStream = 4,
                               kPairsStream = 5;

/// Adds the head's tensors: those of job.head, or weight normal(0, head_init_std) from (seed, kHeadStream) in row-major
/// order and a bias of 0. Throws where job.head holds no head of this shape. Starting full tuning from a head that was
/// trained alone keeps the features from being distorted: Kumar et al., arXiv:2202.10054.
void add_head(ParameterSet& parameters, std::int64_t width, std::int64_t labels, const Job& job);
LinearSpec bind_head(const ParameterSet& parameters);
/// Whether job.head is for vectors of length 1 (core/head_file.h). Throws where it cannot be read.
bool reads_unit_vectors(const Job& job);

/// x [n, width], each row divided by its length.
at::Tensor unit_rows(const at::Tensor& x);

/// Never 0; a function of seed, step and micro-batch only.
std::uint64_t dropout_seed(const StepContext& context);

std::vector<std::int32_t> labels_of(const TokenFile& file, RowSpan rows);

/// Appends softmax(logits) and adds the loss where there is a label (-1: none); one label a row of logits.
void add_predictions(const at::Tensor& logits, std::span<const std::int32_t> labels, Predictions& out);

}  // namespace tailor::tune
