#include "tune/objective.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

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
    add_predictions(scores, labels_of(file_, rows), out);
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

class TokenObjective final : public Objective {
 public:
  TokenObjective(const TokenFile& file, double smoothing) : file_(file), smoothing_(smoothing) {}
  std::int64_t outputs() const override { return file_.n_labels; }

  std::optional<std::vector<std::int64_t>> scored_tokens(RowSpan rows) const override {
    std::vector<std::int64_t> places;
    std::int64_t place = 0;
    for (const std::int64_t r : rows) {
      for (const std::int32_t label : file_.token_labels_of(static_cast<std::size_t>(r))) {
        if (label != kNotAnswered) places.push_back(place);
        ++place;
      }
    }
    return places;
  }

  double weight(RowSpan rows) const override {
    const std::vector<std::int32_t> labels = labels_at(rows);
    return static_cast<double>(std::count_if(labels.begin(), labels.end(), [](std::int32_t l) { return l >= 0; }));
  }

  /// Training rows have a label at every unit (check_targets).
  ClassificationLoss loss(const at::Tensor& scores, RowSpan rows, double denominator) const override {
    const std::vector<std::int32_t> labels = labels_at(rows);
    ClassificationLoss out = classification_loss(scores, labels, smoothing_, denominator);
    if (out.bad_rows.empty()) return out;
    std::vector<std::size_t> bad;  // units to rows
    std::size_t units = 0, next = 0;
    for (std::size_t r = 0; r < rows.size(); ++r) {
      units += labels_at(rows.subspan(r, 1)).size();
      if (next < out.bad_rows.size() && out.bad_rows[next] < units) bad.push_back(r);
      while (next < out.bad_rows.size() && out.bad_rows[next] < units) ++next;
    }
    out.bad_rows = std::move(bad);
    return out;
  }

  void answer(const at::Tensor& scores, RowSpan rows, Predictions& out) const override {
    out.labels = file_.n_labels;
    add_predictions(scores, labels_at(rows), out);
  }

 private:
  std::vector<std::int32_t> labels_at(RowSpan rows) const {
    std::vector<std::int32_t> labels;
    for (const std::int64_t r : rows) {
      for (const std::int32_t label : file_.token_labels_of(static_cast<std::size_t>(r))) {
        if (label != kNotAnswered) labels.push_back(label);
      }
    }
    return labels;
  }

  const TokenFile& file_;
  const double smoothing_;
};

class SpanObjective final : public Objective {
 public:
  explicit SpanObjective(const TokenFile& file) : file_(file) {}
  std::int64_t outputs() const override { return 2; }

  std::optional<std::vector<std::int64_t>> scored_tokens(RowSpan rows) const override {
    std::vector<std::int64_t> places(tokens_of(rows));
    std::iota(places.begin(), places.end(), 0);
    return places;
  }

  ClassificationLoss loss(const at::Tensor& scores, RowSpan rows, double denominator) const override {
    ClassificationLoss out;
    out.d_logits = at::zeros_like(scores);
    const float* z = scores.data_ptr<float>();
    float* dz = out.d_logits.data_ptr<float>();
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const auto row = static_cast<std::size_t>(rows[r]);
      const std::size_t n = file_.row(row).size();
      double loss = 0;
      for (std::size_t side = 0; side < 2; ++side) {
        const std::int32_t target = file_.spans[2 * row + side];
        if (target < 0) continue;
        double top = z[side];
        for (std::size_t t = 1; t < n; ++t) top = std::max(top, static_cast<double>(z[2 * t + side]));
        double total = 0;
        for (std::size_t t = 0; t < n; ++t) total += std::exp(z[2 * t + side] - top);
        const double log_total = std::log(total) + top;
        loss += (log_total - z[2 * static_cast<std::size_t>(target) + side]) / 2;
        for (std::size_t t = 0; t < n; ++t) {
          const double one = static_cast<std::int32_t>(t) == target ? 1 : 0;
          dz[2 * t + side] = static_cast<float>((std::exp(z[2 * t + side] - log_total) - one) / (2 * denominator));
        }
      }
      if (std::isfinite(loss))
        out.loss_sum += loss;
      else
        out.bad_rows.push_back(r);
      z += 2 * n;
      dz += 2 * n;
    }
    return out;
  }

  void answer(const at::Tensor& scores, RowSpan rows, Predictions& out) const override {
    out.loss_sum += loss(scores, rows, 1).loss_sum;
    for (const std::int64_t r : rows) out.weight += file_.spans[2 * static_cast<std::size_t>(r)] >= 0 ? 1 : 0;
    out.values.insert(out.values.end(), scores.data_ptr<float>(), scores.data_ptr<float>() + scores.numel());
  }

 private:
  std::size_t tokens_of(RowSpan rows) const {
    std::size_t n = 0;
    for (const std::int64_t r : rows) n += file_.row(static_cast<std::size_t>(r)).size();
    return n;
  }

  const TokenFile& file_;
};

}  // namespace

std::unique_ptr<Objective> make_objective(const Job& job, const TokenFile& file) {
  switch (job.task) {
    case Task::kRegression:
      return std::make_unique<RegressionObjective>(file);
    case Task::kMultiLabel:
      return std::make_unique<MultiLabelObjective>(file);
    case Task::kTokenClassification:
      return std::make_unique<TokenObjective>(file, job.settings.label_smoothing);
    case Task::kSpanExtraction:
      return std::make_unique<SpanObjective>(file);
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
    case Task::kTokenClassification:
      if (file.n_labels < 2 || file.token_labels.empty())
        return bad(
            fmt::format("it has {} label(s) and {} labelled tokens, token-classification needs token_labels and "
                        "at least 2 labels",
                        file.n_labels, file.token_labels.size()));
      if (job.metric == Metric::kEntityF1 && !file.iob2)
        return bad("its labels do not mark spans, so there is no metric entity_f1");
      for (std::size_t i = 0; i < file.rows(); ++i) {
        const auto labels = file.token_labels_of(i);
        if (std::all_of(labels.begin(), labels.end(), [](std::int32_t l) { return l == kNotAnswered; }))
          return bad(fmt::format("row {} has no token that is answered", file.row_ids[i]));
        if (file.parts[i] == TokenPart::kTrain && std::find(labels.begin(), labels.end(), -1) != labels.end())
          return bad(fmt::format("training row {} has a token without a label", file.row_ids[i]));
      }
      return {};
    case Task::kSpanExtraction:
      if (file.spans.empty()) return bad("it has no spans, which span-extraction needs");
      for (std::size_t i = 0; i < file.rows(); ++i) {
        if (file.parts[i] == TokenPart::kTrain && file.spans[2 * i] < 0)
          return bad(fmt::format("training row {} has no span", file.row_ids[i]));
      }
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
