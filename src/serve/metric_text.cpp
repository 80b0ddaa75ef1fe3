#include "serve/metric_text.h"

#include <fmt/format.h>

#include <cmath>

#include "text/unicode.h"

namespace tailor {
namespace {

/// Of a label's value: in 0.0.4 and OpenMetrics the same.
void append_escaped(std::string& out, std::string_view text, bool quote) {
  const bool utf8 = find_invalid_utf8(text) == std::string_view::npos;  // else the whole page would be refused
  for (const char c : text) {
    if (!utf8 && (c & 0x80) != 0)
      out += '?';
    else if (c == '\\')
      out += "\\\\";
    else if (c == '\n')
      out += "\\n";
    else if (c == '"' && quote)
      out += "\\\"";
    else
      out += c;
  }
}

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return fmt::format("{}", value);
}

/// A bound is the text of a label, and rules compare texts: "1.0", as Python's client writes it.
std::string bound(double value) {
  std::string text = number(value);
  if (text.find_first_of(".eI") == std::string::npos) text += ".0";
  return text;
}

}  // namespace

const char* MetricText::content_type(Format format) {
  return format == Format::kPrometheus ? "text/plain; version=0.0.4; charset=utf-8"
                                       : "application/openmetrics-text; version=1.0.0; charset=utf-8";
}

void MetricText::family(std::string_view name, Kind kind, std::string_view help) {
  name_ = name;
  std::string_view family = name;
  if (format_ == Format::kOpenMetrics && kind == Kind::kCounter && family.ends_with("_total")) family.remove_suffix(6);
  out_.append("# HELP ").append(family).append(" ");
  append_escaped(out_, help, format_ == Format::kOpenMetrics);
  const char* type = kind == Kind::kCounter ? "counter" : kind == Kind::kGauge ? "gauge" : "histogram";
  out_.append("\n# TYPE ").append(family).append(" ").append(type).append("\n");
}

void MetricText::line(std::string_view suffix, const MetricLabels& labels, std::string_view le,
                      std::string_view value) {
  out_.append(name_).append(suffix);
  if (!labels.empty() || !le.empty()) {
    char before = '{';
    const auto add = [&](std::string_view name, std::string_view text) {
      out_ += before;
      before = ',';
      out_.append(name).append("=\"");
      append_escaped(out_, text, true);
      out_ += '"';
    };
    for (const auto& [name, text] : labels) add(name, text);
    if (!le.empty()) add("le", le);
    out_ += '}';
  }
  out_.append(" ").append(value).append("\n");
}

void MetricText::sample(const MetricLabels& labels, double value) {
  line("", labels, "", number(value));
}

void MetricText::sample(const MetricLabels& labels, std::uint64_t value) {
  line("", labels, "", fmt::format("{}", value));
}

void MetricText::histogram(const MetricLabels& labels, const BucketCounts& counted) {
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < counted.bounds().size(); ++i) {
    below += counted.counts()[i];
    line("_bucket", labels, bound(counted.bounds()[i]), fmt::format("{}", below));
  }
  const std::string all = fmt::format("{}", below + counted.counts().back());
  line("_bucket", labels, "+Inf", all);
  line("_sum", labels, "", number(counted.sum()));
  line("_count", labels, "", all);
}

std::string MetricText::finish() && {
  if (format_ == Format::kOpenMetrics) out_ += "# EOF\n";
  return std::move(out_);
}

}  // namespace tailor
