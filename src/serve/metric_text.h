#pragma once
/// Writes metrics as Prometheus reads them: its text format 0.0.4, or OpenMetrics 1.0.
///
/// Not prometheus-cpp: its histograms take a lock at every observation, it knows no OpenMetrics, and most of our
/// numbers are not counted here but read from engines and the HTTP server when somebody asks.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "serve/metric_histogram.h"

namespace tailor {

using MetricLabel = std::pair<std::string_view, std::string_view>;
using MetricLabels = std::vector<MetricLabel>;

class MetricText {
 public:
  enum class Format { kPrometheus, kOpenMetrics };
  enum class Kind { kCounter, kGauge, kHistogram };
  explicit MetricText(Format format) : format_(format) {}

  /// Later samples belong to it. Each name once; a counter's ends with "_total".
  void family(std::string_view name, Kind kind, std::string_view help);
  void counter(std::string_view name, std::string_view help) { family(name, Kind::kCounter, help); }
  void gauge(std::string_view name, std::string_view help) { family(name, Kind::kGauge, help); }
  void sample(const MetricLabels& labels, double value);
  void sample(const MetricLabels& labels, std::uint64_t value);
  void histogram(const MetricLabels& labels, const BucketCounts& counted);
  void histogram(const MetricLabels& labels, const Histogram& now) { histogram(labels, now.read()); }

  std::string finish() &&;
  static const char* content_type(Format format);

 private:
  void line(std::string_view suffix, const MetricLabels& labels, std::string_view more, std::string_view value);
  Format format_;
  std::string name_, out_;
};

}  // namespace tailor
