#pragma once
/// A language model that classifies by scoring labels after a prompt: template, demonstrations, calibration and scorer
/// in one object that can be saved to a package directory.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/matrix.h"
#include "infer/label_scorer.h"
#include "prompt/calibration.h"
#include "prompt/template.h"

namespace tailor {

enum class DemonstrationChoice : std::uint8_t {
  kNone,
  kFixed,      // the same for every message (drawn at random)
  kRetrieved,  // the nearest rows of a pool; the caller gives each message's neighbours
};

struct PromptSettings {
  PromptTemplate prompt;
  DemonstrationChoice choice = DemonstrationChoice::kNone;
  int demonstrations = 0;    // kRetrieved: how many of a message's neighbours stand in its prompt
  int label_neighbours = 0;  // kRetrieved: score only the labels of so many neighbours; 0: all labels
  Calibration calibration;   // none until set
};

/// For each text the rows of the pool, nearest first; empty where demonstrations are not retrieved.
using Neighbours = std::vector<std::vector<std::size_t>>;

/// Threads: one call at a time an object.
class PromptClassifier {
 public:
  /// `labels` as in the data; the model reads readable_labels(). `pool`: kFixed: the demonstrations themselves, in
  /// order; kRetrieved: the rows that neighbours point into. With an empty calibration raw scores are used.
  static Result<PromptClassifier> make(LabelScorer scorer, PromptSettings settings, std::vector<std::string> labels,
                                       std::vector<Demonstration> pool);
  PromptClassifier(PromptClassifier&&) noexcept;
  PromptClassifier& operator=(PromptClassifier&&) noexcept;
  ~PromptClassifier();

  /// log p of each label before calibration, -infinity where a label was left out.
  Result<std::vector<LabelScores>> score(std::span<const std::string> texts, const Neighbours& neighbours,
                                         const ProgressFn& progress, const CancelToken& cancel);
  /// Probabilities [texts, labels]: softmax over calibrated scores; labels left out have 0.
  Result<Matrix> classify(std::span<const std::string> texts, const Neighbours& neighbours, const ProgressFn& progress,
                          const CancelToken& cancel);
  /// The best label alone, by best-first search: the same as the highest of classify() up to rounding, for less.
  Result<std::vector<BestLabel>> best(std::span<const std::string> texts, const Neighbours& neighbours,
                                      const ProgressFn& progress, const CancelToken& cancel);

  /// Chooses among calibrations (see choose_calibration) by labelled validation messages whose raw scores are at hand,
  /// and keeps it. Scores the probes itself.
  Status calibrate_on(std::span<const LabelScores> validation, const PredictionMetric& metric,
                      const CancelToken& cancel, std::vector<CalibrationTrial>* trials = nullptr);
  void set_calibration(Calibration calibration);

  const PromptSettings& settings() const;
  const std::vector<std::string>& labels() const;
  const std::vector<Demonstration>& pool() const;
  std::vector<std::size_t> label_tokens() const;
  const LabelScorer& scorer() const;
  /// One prompt as the model sees it, for reports.
  std::string example_prompt(std::string_view text, std::span<const std::size_t> neighbours) const;

  /// Writes prompt.json and, where there is a pool, demonstrations.jsonl ({"text", "label"}) into `dir`.
  Status save(const std::filesystem::path& dir) const;
  /// Reads them back. The scorer must hold the model that the prompt was made for.
  static Result<PromptClassifier> load(const std::filesystem::path& dir, LabelScorer scorer);

 private:
  struct Impl;
  explicit PromptClassifier(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tailor
