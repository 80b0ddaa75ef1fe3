#include "serve/metric_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>

namespace tailor {
namespace {

bool name_start(char c, bool colon) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (colon && c == ':');
}

/// Takes a name from the beginning of `text`; empty: there is none.
std::string take_name(std::string_view& text, bool colon) {
  std::size_t n = 0;
  while (n < text.size() && (name_start(text[n], colon) || (n > 0 && text[n] >= '0' && text[n] <= '9'))) ++n;
  std::string out(text.substr(0, n));
  text.remove_prefix(n);
  return out;
}

bool take(std::string_view& text, char c) {
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

Result<double> number(std::string_view text) {
  if (text == "+Inf" || text == "Inf") return std::numeric_limits<double>::infinity();
  if (text == "-Inf") return -std::numeric_limits<double>::infinity();
  if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
  double out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(out))
    return Error{ErrorCode::kCorruptData, fmt::format("'{}' is no number", text), ""};
  return out;
}

Error wrong(std::string what) {
  return Error{ErrorCode::kCorruptData, std::move(what), ""};
}

Result<std::string> quoted(std::string_view& text) {
  std::string out;
  if (!take(text, '"')) return wrong("expected '\"'");
  while (!text.empty()) {
    const char c = text.front();
    text.remove_prefix(1);
    if (c == '"') return out;
    if (c != '\\') {
      out += c;
      continue;
    }
    const char escaped = text.empty() ? ' ' : text.front();
    if (escaped != '\\' && escaped != '"' && escaped != 'n') return wrong("an escape that is none of \\\\ \\\" \\n");
    out += escaped == 'n' ? '\n' : escaped;
    text.remove_prefix(1);
  }
  return wrong("a label's value does not end");
}

Result<MetricSample> sample(std::string_view line) {
  MetricSample out;
  out.name = take_name(line, true);
  if (out.name.empty()) return wrong("expected a metric's name");
  if (take(line, '{')) {
    while (!take(line, '}')) {
      if (!out.labels.empty() && !take(line, ',')) return wrong("expected ',' between labels");
      const std::string label = take_name(line, false);
      if (label.empty() || !take(line, '=')) return wrong("expected label=\"…\"");
      TAILOR_TRY(std::string value, quoted(line));
      if (!out.labels.emplace(label, std::move(value)).second) return wrong("the label " + label + " stands twice");
    }
  }
  if (!take(line, ' ')) return wrong("expected a space before the value");
  TAILOR_TRY(out.value, number(line));
  return out;
}

std::string_view without(std::string_view name, std::string_view suffix) {
  return name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : std::string_view();
}

bool belongs(const MetricFamily& family, const std::string& name) {
  if (family.type != "histogram") return name == family.name;
  return without(name, "_bucket") == family.name || without(name, "_sum") == family.name ||
         without(name, "_count") == family.name;
}

Status check_histogram(const MetricFamily& family) {
  struct Series {
    std::vector<std::pair<double, double>> buckets;
    double sum = -1, count = -1;
  };
  std::map<std::map<std::string, std::string>, Series> all;
  for (const MetricSample& s : family.samples) {
    auto labels = s.labels;
    const auto le = labels.find("le");
    if (s.name.ends_with("_bucket")) {
      if (le == labels.end()) return wrong(family.name + ": a bucket without le");
      TAILOR_TRY(const double bound, number(le->second));
      labels.erase(le);
      all[labels].buckets.emplace_back(bound, s.value);
      continue;
    }
    if (le != labels.end()) return wrong(family.name + ": le where no bucket is");
    (s.name.ends_with("_sum") ? all[labels].sum : all[labels].count) = s.value;
  }
  for (const auto& [labels, series] : all) {
    if (series.buckets.empty() || !std::isinf(series.buckets.back().first))
      return wrong(family.name + ": the last bucket is not +Inf");
    for (std::size_t i = 1; i < series.buckets.size(); ++i) {
      if (series.buckets[i].first <= series.buckets[i - 1].first) return wrong(family.name + ": bounds do not rise");
      if (series.buckets[i].second < series.buckets[i - 1].second) return wrong(family.name + ": buckets fall");
    }
    if (series.count != series.buckets.back().second) return wrong(family.name + ": _count is not that of +Inf");
    if (series.sum < 0) return wrong(family.name + ": no _sum");
  }
  return {};
}

/// "HELP name text" or "TYPE name type", after "# ".
Status comment(std::string_view line, std::vector<MetricFamily>& families, std::set<std::string>& names) {
  const bool help = line.substr(0, 5) == "HELP ";
  if (!help && line.substr(0, 5) != "TYPE ") return {};
  line.remove_prefix(5);
  const std::string name = take_name(line, true);
  if (name.empty() || !take(line, ' ')) return wrong("expected a name and a space");
  if (help) {
    if (!names.insert(name).second) return wrong(name + " comes twice");
    for (std::size_t at = 0; (at = line.find('\\', at)) != std::string_view::npos; at += 2) {
      if (at + 1 == line.size() || (line[at + 1] != '\\' && line[at + 1] != 'n')) return wrong("a bad escape in HELP");
    }
    families.push_back({name, std::string(line), "", {}});
    return {};
  }
  if (families.empty() || families.back().name != name || !families.back().type.empty())
    return wrong("TYPE of " + name + " does not follow its HELP");
  if (line != "counter" && line != "gauge" && line != "histogram")
    return wrong(fmt::format("'{}' is no type known here", line));
  families.back().type = line;
  if (line == "counter" && !name.ends_with("_total")) return wrong("the counter " + name + " does not end with _total");
  return {};
}

}  // namespace

Result<std::vector<MetricFamily>> parse_metrics(std::string_view text) {
  std::vector<MetricFamily> out;
  std::set<std::string> names;
  std::set<std::pair<std::string, std::map<std::string, std::string>>> seen;
  if (!text.empty() && text.back() != '\n') return wrong("metrics: the last line does not end");
  for (int number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    const auto at = [&](const Error& error) {
      return wrong(fmt::format("metrics line {}: {}", number, error.message));
    };
    if (line.empty()) continue;
    if (line.front() == '#') {
      if (line.size() < 2 || line[1] != ' ') continue;
      if (const Status status = comment(line.substr(2), out, names); !status.has_value()) return at(status.error());
      continue;
    }
    Result<MetricSample> read = sample(line);
    if (!read.has_value()) return at(read.error());
    if (out.empty() || out.back().type.empty() || !belongs(out.back(), read->name))
      return at(wrong(read->name + " is not of the family above it"));
    if (!seen.emplace(read->name, read->labels).second) return at(wrong(read->name + " comes twice with these labels"));
    if (out.back().type != "gauge" && !(read->value >= 0)) return at(wrong(read->name + " is below 0"));
    out.back().samples.push_back(std::move(*read));
  }
  for (const MetricFamily& family : out) {
    if (family.type.empty()) return wrong("metrics: " + family.name + " has no TYPE");
    if (family.type == "histogram") TAILOR_CHECK(check_histogram(family));
  }
  return out;
}

}  // namespace tailor
