#include "tune/objective.h"

#include <ATen/ops/empty_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tune/distillation_loss.h"
#include "tune/head.h"

namespace tailor::tune {
namespace {

class ClassObjective : public Objective {
 public:
  ClassObjective(const TokenFile& file, double smoothing) : file_(file), smoothing_(smoothing) {}
  std::int64_t outputs() const override { return file_.n_labels; }
  ClassificationLoss loss(const at::Tensor& scores, RowSpan rows, double denominator) const override {
    return classification_loss(scores, labels_of(file_, rows), smoothing_, denominator);
  }
  void answer(const at::Tensor& scores, RowSpan rows, Predictions& out) const override {
    out.labels = file_.n_labels;
    add_predictions(scores, file_, rows, out);
  }

 protected:
  const TokenFile& file_;
  const double smoothing_;
};

class DistillObjective final : public ClassObjective {
 public:
  DistillObjective(const TokenFile& file, const Settings& settings)
      : ClassObjective(file, settings.label_smoothing), settings_(settings.distill) {}
  ClassificationLoss loss(const at::Tensor& scores, RowSpan rows, double denominator) const override {
    return distillation_loss(scores, file_, rows, settings_, smoothing_, denominator);
  }

 private:
  const DistillSettings settings_;
};

/// Objectives whose loss is a sum over the outputs of a function of score and target.
class TargetObjective : public Objective {
 public:
  explicit TargetObjective(const TokenFile& file) : file_(file) {}
  std::int64_t outputs() const override { return static_cast<std::int64_t>(file_.target_width()); }

  ClassificationLoss loss(const at::Tensor& scores, RowSpan rows, double denominator) const override {
    ClassificationLoss out;
    out.d_logits = at::empty_like(scores);
    const auto width = static_cast<std::size_t>(scores.size(1));
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const float* z = scores.data_ptr<float>() + r * width;
      float* dz = out.d_logits.data_ptr<float>() + r * width;
      const auto target = file_.targets_of(static_cast<std::size_t>(rows[r]));
      double loss = 0;
      for (std::size_t c = 0; c < width; ++c) {
        loss += loss_of(z[c], target[c]);
        dz[c] = static_cast<float>(slope_of(z[c], target[c]) / (static_cast<double>(width) * denominator));
      }
      if (std::isfinite(loss))
        out.loss_sum += loss / static_cast<double>(width);
      else
        out.bad_rows.push_back(r);
    }
    return out;
  }

 protected:
  virtual double loss_of(double score, double target) const = 0;
  virtual double slope_of(double score, double target) const = 0;

  const TokenFile& file_;
};

class RegressionObjective final : public TargetObjective {
 public:
  using TargetObjective::TargetObjective;
  void answer(const at::Tensor& scores, RowSpan rows, Predictions& out) const override {
    out.loss_sum += loss(scores, rows, 1).loss_sum;
    out.weight += static_cast<double>(rows.size());
    out.values.insert(out.values.end(), scores.data_ptr<float>(), scores.data_ptr<float>() + scores.numel());
  }

 protected:
  double loss_of(double score, double target) const override { return (score - target) * (score - target); }
  double slope_of(double score, double target) const override { return 2 * (score - target); }
};

class MultiLabelObjective final : public TargetObjective {
 public:
  using TargetObjective::TargetObjective;
  void answer(const at::Tensor& scores, RowSpan rows, Predictions& out) const override {
    out.labels = outputs();
    out.loss_sum += loss(scores, rows, 1).loss_sum;
    out.weight += static_cast<double>(rows.size());
    for (const float *z = scores.data_ptr<float>(), *end = z + scores.numel(); z != end; ++z)
      out.probabilities.push_back(static_cast<float>(1 / (1 + std::exp(-static_cast<double>(*z)))));
  }

 protected:
  double loss_of(double score, double target) const override {  // stable for large scores of either sign
    return std::max(score, 0.0) - score * target + std::log1p(std::exp(-std::abs(score)));
  }
  double slope_of(double score, double target) const override { return 1 / (1 + std::exp(-score)) - target; }
};

}  // namespace

std::unique_ptr<Objective> make_objective(const Job& job, const TokenFile& file) {
  switch (job.task) {
    case Task::kRegression:
      return std::make_unique<RegressionObjective>(file);
    case Task::kMultiLabel:
      return std::make_unique<MultiLabelObjective>(file);
    default:
      if (job.method == "distill") return std::make_unique<DistillObjective>(file, job.settings);
      return std::make_unique<ClassObjective>(file, job.settings.label_smoothing);
  }
}

Status check_targets(const Job& job, const TokenFile& file) {
  const auto bad = [&](std::string what) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: {}", job.tokens.string(), what), ""};
  };
  if (job.n_labels > 0 && job.n_labels != file.n_labels) {
    return bad(fmt::format("it has {} labels, the job says {}", file.n_labels, job.n_labels));
  }
  switch (job.task) {
    case Task::kCausalLm:
      if (file.n_labels > 0) return bad("it has labels, but the task is causal-lm");
      return {};
    case Task::kRegression:
      if (file.target_width() != 1)
        return bad(fmt::format("it has {} targets a row, regression needs 1", file.target_width()));
      return {};
    case Task::kMultiLabel:
      if (file.n_labels < 1 || file.target_width() != static_cast<std::size_t>(file.n_labels)) {
        return bad(fmt::format("it has {} label(s) and {} targets a row, multi-label needs one target a label",
                               file.n_labels, file.target_width()));
      }
      if (std::any_of(file.targets.begin(), file.targets.end(), [](float t) { return t < 0 || t > 1; }))
        return bad("it has a target outside 0 to 1, multi-label needs 1 where a label holds and 0 elsewhere");
      return {};
    case Task::kSequenceClassification:
    case Task::kCausalLmLabels:
      break;
  }
  if (file.n_labels < 2) return bad(fmt::format("it has {} label(s), at least 2 are needed", file.n_labels));
  const bool distills = job.method == "distill";
  if (distills && file.soft_targets.empty()) return bad("it has no soft_targets, which method distill learns from");
  for (std::size_t i = 0; i < file.rows(); ++i) {
    if (file.parts[i] != TokenPart::kTrain || file.labels[i] >= 0) continue;
    if (!distills) return bad(fmt::format("training row {} has no label", file.row_ids[i]));
    if (file.soft_target(i).empty())
      return bad(fmt::format("training row {} has neither a label nor a teacher's answer", file.row_ids[i]));
  }
  return {};
}

}  // namespace tailor::tune
