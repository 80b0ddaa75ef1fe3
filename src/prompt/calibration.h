#pragma once
/// Correcting a language model's taste for some labels before any message is read.
///
/// With length normalisation a label's raw score is  s = log p / tokens,  else  s = log p.  Calibrated:  s - b[label].
///   content-free  b = log of the mean, over probes that say nothing ("N/A", "", "[MASK]"), of softmax(s)
///                 (Zhao et al., Calibrate Before Use, arXiv:2102.09690)
///   batch mean    b = log of the mean of softmax(s) over unlabelled messages
///                 (Zhou et al., Batch Calibration, arXiv:2309.17249, with the mean of probabilities)

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "infer/label_scorer.h"

namespace tailor {

enum class CalibrationKind : std::uint8_t { kNone, kContentFree, kBatchMean };
std::string_view name_of(CalibrationKind kind);  // "none", "content_free", "batch_mean"

struct Calibration {
  CalibrationKind kind = CalibrationKind::kNone;
  bool length_normalised = false;
  ScoreCalibration scores;  // what LabelScorer::best() takes; norm is a label's tokens, or 1

  /// (log p - bias) / norm; -infinity stays.
  std::vector<double> apply(std::span<const double> log_p) const;
  Json to_json() const;
  static Result<Calibration> from_json(const Json& json);
};

/// Messages that say nothing.
const std::vector<std::string>& content_free_probes();

/// `rows`: raw log p of the probes (content-free) or of unlabelled messages (batch mean), [n][labels], -infinity where
/// a label was not scored; not used by kNone. `label_tokens`: tokens scored for each label, >= 1.
Result<Calibration> calibrate(CalibrationKind kind, bool length_normalised, std::span<const LabelScores> rows,
                              std::span<const std::size_t> label_tokens);

/// Goodness of predicted labels, higher is better.
using PredictionMetric = std::function<double(std::span<const std::int32_t> predicted)>;

struct CalibrationTrial {
  CalibrationKind kind;
  bool length_normalised;
  double value;
};

/// All six combinations on labelled validation messages; of equal ones the simplest (none before probes before batch,
/// without length normalisation first). `probes` may be empty: then content-free is not tried. `trials` may be null.
Result<Calibration> choose_calibration(std::span<const LabelScores> validation, std::span<const LabelScores> probes,
                                       std::span<const std::size_t> label_tokens, const PredictionMetric& metric,
                                       std::vector<CalibrationTrial>* trials = nullptr);

/// Index of the highest; of equal ones the first.
std::int32_t arg_max(std::span<const double> scores);
/// exp(s) / sum exp(s); -infinity gives 0.
std::vector<double> softmax(std::span<const double> scores);

}  // namespace tailor
