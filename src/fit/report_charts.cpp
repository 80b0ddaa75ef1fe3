#include "fit/report_charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "eval/metrics.h"
#include "fit/budget.h"
#include "fit/report_figures.h"
#include "fit/report_format.h"
#include "fit/report_svg.h"
#include "fit/table.h"

namespace tailor {
namespace {

constexpr double kCostRange = 3e4;  // from the left edge to the dearest candidate

using Family = MethodText::Family;

Family family_of(const ReportInput& input, const TrialRecord& trial) {
  const auto it = input.methods.find(trial.method);
  if (it != input.methods.end()) return it->second.family;
  return trial.base_model.empty() ? Family::kNoModel : Family::kFrozen;
}

/// The score that the user chooses by, as far as it has an interval; accuracy beside a cost.
Interval quality_of(const TrialRecord& trial, const MetricName& metric) {
  if (metric.kind == MetricName::Kind::kMacroF1) return trial.scores.macro_f1;
  if (metric.kind == MetricName::Kind::kClassF1) return {trial.test_score, trial.test_score, trial.test_score};
  return trial.scores.accuracy;
}

std::string quality_title(const MetricName& metric) {
  if (metric.kind == MetricName::Kind::kMacroF1) return "Macro-F1";
  if (metric.kind == MetricName::Kind::kClassF1) return metric.title;
  return "Accuracy";
}

double cost_of(const TrialRecord& trial, CostAxis axis) {
  return axis == CostAxis::kCostPerThousand ? trial.cost_per_thousand : trial.train_seconds;
}

std::string cost_text(double value, CostAxis axis) {
  if (axis == CostAxis::kCostPerThousand) return format_significant(value, 2);
  return value < 1 ? format_significant(value, 1) + " s" : format_short_seconds(value);
}

std::string axis_tick(double value, CostAxis axis) {
  if (axis == CostAxis::kCostPerThousand) return format_significant(value, 1);
  if (value < 60) return format_significant(value, 1) + " s";
  return value < 3600 ? fmt::format("{:.3g} min", value / 60) : fmt::format("{:.3g} h", value / 3600);
}

/// Time has its own round values.
std::vector<double> seconds_ticks(const Scale& scale, bool narrow) {
  static constexpr double kAll[] = {0.01, 0.1, 1, 10, 60, 600, 3600, 36000};
  static constexpr double kFew[] = {0.01, 1, 10, 60, 600, 3600};
  std::vector<double> out;
  for (const double t : narrow ? std::span<const double>(kFew) : std::span<const double>(kAll)) {
    if (t >= scale.low && t <= scale.high) out.push_back(t);
  }
  return out.size() >= 2 ? out : scale.ticks(4);
}

const Json& settings_of(const Json& point) {
  static const Json kNone = Json::object();
  return point.is_object() && point.contains("settings") ? point["settings"] : kNone;
}

struct Mark {
  const TrialRecord* trial;
  Interval quality;
  double x, y;
  bool below;
  bool recommended;
  std::string label;
  std::string colour;
};

/// Marks of nearly the same cost (methods on the same base model) would hide each other: they stand side by side.
void stand_side_by_side(std::vector<Mark>& marks, double low, double high) {
  constexpr double kStep = 11;
  std::vector<Mark*> order;
  for (Mark& m : marks) order.push_back(&m);
  std::stable_sort(order.begin(), order.end(), [](const Mark* a, const Mark* b) { return a->x < b->x; });
  for (std::size_t first = 0, last = 0; first < order.size(); first = last) {
    double middle = order[first]->x;
    for (last = first + 1; last < order.size() && order[last]->x - order[last - 1]->x < kStep - 1; ++last) {
      middle += order[last]->x;
    }
    if (last - first < 2) continue;
    const double half = kStep * static_cast<double>(last - first - 1) / 2;
    middle = std::clamp(middle / static_cast<double>(last - first), low + half, std::max(low + half, high - half));
    for (std::size_t i = first; i < last; ++i) order[i]->x = middle - half + kStep * static_cast<double>(i - first);
  }
}

}  // namespace

std::string series_class(const ReportInput& input, const TrialRecord& trial) {
  switch (family_of(input, trial)) {
    case Family::kNoModel:
      return "s-none";
    case Family::kFrozen:
      return "s-frozen";
    case Family::kTrained:
      return "s-trained";
  }
  return "s-none";
}

char series_shape(const ReportInput& input, const TrialRecord& trial) {
  switch (family_of(input, trial)) {
    case Family::kNoModel:
      return '^';
    case Family::kFrozen:
      return 'o';
    case Family::kTrained:
      return 's';
  }
  return 'o';
}

std::string quality_chart(const ReportInput& input, CostAxis axis, double width, double height) {
  const MetricName metric = metric_name(input.options.metric);
  std::vector<Mark> marks;
  std::vector<Interval> scores;
  double least = 0, most = 0;
  for (const TrialRecord& trial : input.trials) {
    if (!trial.ok() || trial.n_scored == 0) continue;
    const Interval quality = quality_of(trial, metric);
    marks.push_back({&trial, quality, 0, 0, false, trial.id == input.decision.recommended,
                     short_trial_name(input, trial), series_class(input, trial)});
    scores.push_back(quality);
    const double cost = cost_of(trial, axis);
    if (cost > 0) least = least == 0 ? cost : std::min(least, cost);
    most = std::max(most, cost);
  }
  if (marks.size() < 2) return "";
  if (least == 0) least = most = 1;
  const bool narrow = width < 500;
  const double left = 46, right = 14, top = 14, bottom = 44;
  const QualityRange range = quality_range(scores);
  const double foot = range.cut ? 26 : 0;  // strip below the axis for those that lie far below
  // Floors cost next to nothing; they stand on the left edge rather than push all others together.
  Scale x{std::max(least / 1.8, most / kCostRange), most * 1.8, left, width - right, true};
  if (x.high / x.low < 10) {
    const double middle = std::sqrt(x.high * x.low);
    x.low = middle / 3.2;
    x.high = middle * 3.2;
  }
  const Scale y{range.low, range.high, height - bottom - foot, top};
  const std::string cost_title = axis == CostAxis::kCostPerThousand ? "cost of 1,000 requests" : "training time";

  std::string description;
  for (const Mark& m : marks) {
    description +=
        fmt::format("{}: {}, {}. ", m.label, format_percent(m.quality.value), cost_text(cost_of(*m.trial, axis), axis));
  }
  Svg svg(width, height, fmt::format("{} against {}", quality_title(metric), cost_title), description, "chart");
  for (const double tick : y.ticks(7)) {
    svg.line(left, y(tick), width - right, y(tick), "grid");
    svg.text(left - 6, y(tick) + 4, fmt::format("{:.4g} %", 100 * tick), "tick", "end");
  }
  const auto x_ticks = axis == CostAxis::kTrainSeconds ? seconds_ticks(x, narrow) : x.ticks(narrow ? 4 : 7);
  for (const double tick : x_ticks) {
    svg.line(x(tick), top, x(tick), height - bottom, "grid");
    svg.text(x(tick), height - bottom + 16, axis_tick(tick, axis), "tick", "middle");
  }
  svg.line(left, height - bottom, width - right, height - bottom, "axis");
  svg.text((left + width - right) / 2, height - 8,
           (axis == CostAxis::kCostPerThousand ? "Cost of 1,000 requests" : "Training time") +
               std::string(" (logarithmic) →"),
           "axis-title", "middle");
  if (range.cut) {
    svg.line(left, height - bottom - foot, width - right, height - bottom - foot, "axis-dashed");
    svg.text(left - 6, height - bottom - foot / 2 + 4, "lower", "tick", "end");
  }

  for (Mark& m : marks) m.x = std::max(left + 10, x(std::max(cost_of(*m.trial, axis), x.low)));
  stand_side_by_side(marks, left + 6, width - right - 6);
  std::vector<Box> obstacles;
  for (Mark& m : marks) {
    m.below = m.quality.value < range.low;
    m.y = m.below ? height - bottom - foot / 2 : y(m.quality.value);
    const double reach = m.recommended ? 12 : 7;
    obstacles.push_back({m.x - reach, m.y - reach, 2 * reach, 2 * reach});
    if (m.below || m.quality.high <= m.quality.low) continue;
    const double y_high = y(std::min(m.quality.high, range.high)), y_low = y(std::max(m.quality.low, range.low));
    obstacles.push_back({m.x - 3, y_high, 6, y_low - y_high});
    svg.line(m.x, y_high, m.x, y_low, "whisker " + m.colour);
    svg.line(m.x - 3, y_high, m.x + 3, y_high, "whisker " + m.colour);
    svg.line(m.x - 3, y_low, m.x + 3, y_low, "whisker " + m.colour);
  }
  // The recommended and the best get their labels first, so that theirs are the nearest.
  std::stable_sort(marks.begin(), marks.end(), [](const Mark& a, const Mark& b) {
    if (a.recommended != b.recommended) return a.recommended;
    return a.quality.value > b.quality.value;
  });
  std::vector<PlacedLabel> labels;
  for (Mark& m : marks) {
    if (cost_of(*m.trial, axis) < x.low) m.label = "← " + m.label;
    if (m.below) m.label += fmt::format(" ({})", format_percent(m.quality.value));
    const double letter = m.recommended ? 6.6 : 6.1;
    labels.push_back({m.x, m.y, letter * static_cast<double>(display_width(m.label)) + 4, 14, {}, false});
  }
  place_labels(labels, obstacles, {left + 2, 2, width - left - 4, height - bottom - 3});
  for (std::size_t i = 0; i < marks.size(); ++i) {
    if (!labels[i].leader) continue;
    const Box& b = labels[i].box;
    svg.line(marks[i].x, marks[i].y, std::clamp(marks[i].x, b.x, b.x + b.w), std::clamp(marks[i].y, b.y, b.y + b.h),
             "leader");
  }
  for (const Mark& m : marks) {
    const std::string tip = fmt::format("{}: {} {} [{}], {} {}", trial_title(input, *m.trial), quality_title(metric),
                                        format_percent(m.quality.value), format_interval(m.quality), cost_title,
                                        cost_text(cost_of(*m.trial, axis), axis));
    if (m.recommended) svg.circle(m.x, m.y, 10, "ring");
    svg.marker(m.below ? 'v' : series_shape(input, *m.trial), m.x, m.y, 5.2, "mark " + m.colour, tip);
  }
  for (std::size_t i = 0; i < marks.size(); ++i) {
    svg.text(labels[i].box.x + 2, labels[i].box.y + 11, marks[i].label,
             marks[i].recommended ? "label strong" : "label");
  }
  return std::move(svg).finish();
}

std::string reliability_chart(const Predictions& p, int bins) {
  const auto all = reliability_bins(p, bins);
  std::size_t most = 1, rows = 0;
  for (const auto& b : all) {
    most = std::max(most, b.rows);
    rows += b.rows;
  }
  const double width = 460, left = 62, right = 14, top = 10, plot = 250, counts = 46,
               height = top + plot + 14 + counts + 38;
  const Scale x{0, 1, left, width - right};
  const Scale y{0, 1, top + plot, top};
  std::string description = "Per bin of confidence, mean confidence, accuracy and rows: ";
  for (const auto& b : all) {
    if (b.rows > 0)
      description +=
          fmt::format("{}, {}, {}; ", format_percent(b.confidence), format_percent(b.accuracy), format_count(b.rows));
  }
  Svg svg(width, height, "Calibration: accuracy against confidence", description, "chart");
  for (const double tick : {0.0, 0.25, 0.5, 0.75, 1.0}) {
    svg.line(left, y(tick), width - right, y(tick), "grid");
    svg.text(left - 6, y(tick) + 4, fmt::format("{:.0f} %", 100 * tick), "tick", "end");
    svg.text(x(tick), height - 22, fmt::format("{:.0f} %", 100 * tick), "tick", tick == 1 ? "end" : "middle");
  }
  svg.line(x(0), y(0), x(1), y(1), "ideal");
  const double base = height - 38;
  const auto few = [&](const ReliabilityBin& b) { return b.rows < 10 && 50 * b.rows < rows; };  // says next to nothing
  std::string d;
  for (const auto& b : all) {
    if (b.rows == 0) continue;
    const double bar = counts * static_cast<double>(b.rows) / static_cast<double>(most);
    const std::string tip = fmt::format("{}, mean confidence {}, {} right", plural(b.rows, "row", "rows"),
                                        format_percent(b.confidence), format_percent(b.accuracy));
    svg.rect(x(b.low) + 1, base - std::max(bar, 1.0), x(b.high) - x(b.low) - 2, std::max(bar, 1.0), "bar", tip);
    if (few(b)) continue;
    d += fmt::format("{}{} {}", d.empty() ? "M" : "L", svg_number(x(b.confidence)), svg_number(y(b.accuracy)));
  }
  svg.line(left, base, width - right, base, "axis");
  svg.path(d, "curve");
  for (const auto& b : all) {
    if (b.rows == 0) continue;
    const std::string tip = fmt::format("{}, mean confidence {}, {} right", plural(b.rows, "row", "rows"),
                                        format_percent(b.confidence), format_percent(b.accuracy));
    svg.circle(x(b.confidence), y(b.accuracy), 4.2, few(b) ? "mark hollow" : "mark s-frozen", tip);
  }
  svg.text(left - 6, base - counts / 2 + 4, "rows", "tick", "end");
  svg.text((left + width - right) / 2, height - 5, "Confidence of the answer", "axis-title", "middle");
  svg.vertical_text(10, top + plot / 2, "Answers that were right", "axis-title");
  return std::move(svg).finish();
}

std::string hand_over_chart(const Predictions& p) {
  auto curve = coverage_curve(p);
  // The last few rows say nothing about a share of messages.
  const double least = std::max(0.02, 20.0 / static_cast<double>(std::max<std::size_t>(p.size(), 1)));
  while (curve.size() > 1 && curve.back().answered < least) curve.pop_back();
  const double width = 460, height = 358, left = 62, right = 14, top = 10, bottom = 44;
  double low = 1;
  for (const auto& point : curve) {
    if (1 - point.answered <= 0.9) low = std::min(low, point.accuracy);
  }
  low = std::max(0.0, std::floor((low - 0.02) * 20) / 20);
  const Scale x{0, 1, left, width - right};
  const Scale y{low, 1, height - bottom, top};
  std::string description = "Share handed to a person and accuracy of the rest: ";
  for (std::size_t i = 0; i < curve.size(); i += std::max<std::size_t>(1, curve.size() / 10)) {
    description += fmt::format("{}, {}; ", format_percent(1 - curve[i].answered), format_percent(curve[i].accuracy));
  }
  Svg svg(width, height, "Accuracy of the answers given, by the share handed to a person", description, "chart");
  for (const double tick : y.ticks(5)) {
    svg.line(left, y(tick), width - right, y(tick), "grid");
    svg.text(left - 6, y(tick) + 4, fmt::format("{:.4g} %", 100 * tick), "tick", "end");
  }
  for (const double tick : {0.0, 0.2, 0.4, 0.6, 0.8, 1.0})
    svg.text(x(tick), height - bottom + 16, fmt::format("{:.0f} %", 100 * tick), "tick", tick == 1 ? "end" : "middle");
  svg.line(left, y(low), width - right, y(low), "axis");
  std::string d;
  for (const auto& point : curve) {
    if (point.accuracy >= low)
      d += fmt::format("{}{} {}", d.empty() ? "M" : "L", svg_number(x(1 - point.answered)),
                       svg_number(y(point.accuracy)));
  }
  svg.path(d, "curve");
  if (!curve.empty())
    svg.circle(x(1 - curve.front().answered), y(curve.front().accuracy), 4.2, "mark s-frozen",
               "everything answered: " + format_percent(curve.front().accuracy));
  svg.text((left + width - right) / 2, height - 8, "Messages handed to a person, the least certain first", "axis-title",
           "middle");
  svg.vertical_text(11, (top + height - bottom) / 2, "Accuracy of the rest", "axis-title");
  return std::move(svg).finish();
}

std::string confusion_chart(const ReportInput& input, const Predictions& p) {
  const std::size_t n = input.label_names.size();
  const auto pairs = confused_pairs(p);
  std::vector<std::size_t> hits(n, 0), support(n, 0);
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (p.truth[i] < 0 || static_cast<std::size_t>(p.truth[i]) >= n) continue;
    ++support[static_cast<std::size_t>(p.truth[i])];
    hits[static_cast<std::size_t>(p.truth[i])] += p.truth[i] == p.predicted[i] ? 1 : 0;
  }
  const bool large = n <= 25;
  const double cell = n <= 4 ? 64 : n <= 12 ? 38 : large ? 26 : 11;
  std::size_t longest = 4;
  const std::size_t cut = large ? 26 : 34;
  for (const auto& name : input.label_names) longest = std::max(longest, std::min(cut, display_width(name)));
  const double letter = large ? 6.6 : 4.9;
  const double margin = letter * static_cast<double>(longest) + 14;
  const double across = n <= 4 ? 34 : margin;  // few classes have room for level labels
  const double side = cell * static_cast<double>(n);
  const double width = margin + side + (n <= 4 ? margin / 2 : 8), height = across + side + 6;
  Svg svg(
      width, height, "Confusion matrix",
      fmt::format(
          "{} classes; rows are the true class, columns the predicted one. The most confused pairs are listed as text.",
          n),
      "chart fixed");
  const auto fitted = [&](const std::string& name) {
    const std::string text = fit_width(name, std::min(cut, display_width(name)));
    return text;
  };
  for (std::size_t c = 0; c < n; ++c) {
    const double middle = cell * (static_cast<double>(c) + 0.5);
    const std::string name = fitted(input.label_names[c]);
    svg.text(margin - 6, across + middle + (large ? 4 : 3), name, large ? "tick" : "tick tiny", "end");
    if (n <= 4)
      svg.text(margin + middle, across - 8, name, "tick", "middle");
    else
      svg.vertical_text(margin + middle + (large ? 4 : 3), across - 6, name, large ? "tick" : "tick tiny", "start");
  }
  svg.rect(margin, across, side, side, "heat-field");
  const auto draw = [&](std::size_t truth, std::size_t predicted, std::size_t rows, bool right) {
    const double share = static_cast<double>(rows) / static_cast<double>(std::max<std::size_t>(support[truth], 1));
    const double x = margin + cell * static_cast<double>(predicted), y = across + cell * static_cast<double>(truth);
    const std::string tip =
        fmt::format("true {}, predicted {}: {} of {} ({})", input.label_names[truth], input.label_names[predicted],
                    format_count(rows), format_count(support[truth]), format_percent(share));
    svg.rect(x + 0.5, y + 0.5, cell - 1, cell - 1, right ? "heat-right" : "heat-wrong", tip,
             std::min(0.99, right ? 0.10 + 0.80 * share : 0.16 + 0.84 * std::sqrt(share)));
    if (large)
      svg.text(x + cell / 2, y + cell / 2 + 4, format_count(rows), share > 0.62 ? "heat-number inverse" : "heat-number",
               "middle");
  };
  for (std::size_t c = 0; c < n; ++c) {
    if (hits[c] > 0) draw(c, c, hits[c], true);
  }
  for (const auto& pair : pairs) {
    if (pair.predicted >= 0)
      draw(static_cast<std::size_t>(pair.truth), static_cast<std::size_t>(pair.predicted), pair.rows, false);
  }
  return std::move(svg).finish();
}

std::string search_chart(const TrialRecord& trial, double low, double high) {
  if (!trial.search.is_array() || trial.search.size() < 2) return "";
  std::size_t best = 0;
  for (std::size_t i = 1; i < trial.search.size(); ++i) {
    if (json_number(trial.search[i], "score") > json_number(trial.search[best], "score")) best = i;
  }
  const double width = 240, height = 20;
  const Scale x{low, high > low ? high : low + 1, 10, width - 10};
  Svg svg(width, height, "Validation scores of the settings searched",
          plural(trial.search.size(), "setting", "settings"), "spark");
  svg.line(6, 10, width - 6, 10, "grid");
  const auto draw = [&](std::size_t i, double r, std::string_view css_class) {
    const double score = json_number(trial.search[i], "score");
    svg.circle(x(score), 10, r, css_class, format_settings(settings_of(trial.search[i])));
  };
  for (std::size_t i = 0; i < trial.search.size(); ++i) {
    if (i != best) draw(i, 4, "mark hollow");
  }
  draw(best, 5, "mark s-frozen");
  return std::move(svg).finish();
}

std::string interval_chart(const Interval& interval, double low, double high, bool accent) {
  const double width = 84, height = 14;
  const Scale x{low, high, 5, width - 5};
  Svg svg(width, height, "95 % interval", format_percent(interval.value) + " [" + format_interval(interval) + "]",
          "forest");
  svg.line(5, 7, width - 5, 7, "grid");
  const std::string colour = accent ? "s-frozen" : "s-none";
  if (interval.value < low) {
    svg.path("M9 2.5L3 7L9 11.5Z", "mark " + colour);
    return std::move(svg).finish();
  }
  svg.line(x(std::max(interval.low, low)), 7, x(std::min(interval.high, high)), 7, "whisker " + colour);
  svg.circle(x(interval.value), 7, 3.6, "mark " + colour);
  return std::move(svg).finish();
}

}  // namespace tailor
