#pragma once
/// A server's metrics as a page of text for a terminal.

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "serve/metric_parser.h"

namespace tailor {

struct TopSnapshot {
  SteadyTime at;
  std::vector<MetricFamily> families;
};

struct TopSize {
  int columns = 80, rows = 24;
  bool colour = false;
};

/// The value below which `share` of the observations of a histogram lie, read linearly within its bucket, of what came
/// between two snapshots; negative: none did. `buckets`: bounds and how many lie at or below each, rising to infinity.
double histogram_quantile(const std::vector<std::pair<double, double>>& buckets, double share);

/// Lines of at most `columns` characters, at most `rows` of them. Rates and times are of the span between the
/// snapshots; the same one twice: since the server's start.
std::string top_page(const TopSnapshot& before, const TopSnapshot& now, const std::string& url, const TopSize& size);

}  // namespace tailor
