#pragma once
/// The process, under the names that Prometheus' own clients use.

#include "serve/metric_text.h"

namespace tailor {

/// From /proc/self; what cannot be read is left out.
void write_process_metrics(MetricText& out);

}  // namespace tailor
