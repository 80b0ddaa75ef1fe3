#pragma once
/// Reads metrics as Prometheus' text format 0.0.4 has them, strictly: what Prometheus would refuse or misread is an
/// error.

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tailor {

struct MetricSample {
  std::string name;  // with _bucket, _sum or _count
  std::map<std::string, std::string> labels;
  double value = 0;
};

struct MetricFamily {
  std::string name, help, type;
  std::vector<MetricSample> samples;
};

/// Checked: HELP and TYPE once for each family and before its samples, families in one piece, names, labels and
/// escapes, no sample twice, counters not negative, buckets rising to le="+Inf", which equals _count. Errors name the
/// line.
Result<std::vector<MetricFamily>> parse_metrics(std::string_view text);

}  // namespace tailor
