#include "fit/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "fit/budget.h"
#include "fit/candidates.h"
#include "fit/report_format.h"
#include "text/unicode.h"

namespace tailor {
namespace {

using Column = ComparisonTable::Column;
using Cell = ComparisonTable::Cell;
using Row = ComparisonTable::Row;

constexpr const char* kDash = "–";

std::vector<Column> make_columns(const MetricName& metric) {
  std::vector<Column> columns = {{"method", "Method", "method"}, {"base_model", "Base model", "base model", false, 3}};
  if (metric.kind == MetricName::Kind::kClassF1 || metric.kind == MetricName::Kind::kCost) {
    columns.push_back({"metric", metric.title, metric.title, true, 0});
  }
  for (Column c : std::vector<Column>{{"accuracy", "Accuracy, %", "accuracy", true, 0},
                                      {"macro_precision", "Macro precision, %", "macro-P", true, 9},
                                      {"macro_recall", "Macro recall, %", "macro-R", true, 8},
                                      {"macro_f1", "Macro F1, %", "macro-F1", true, 2},
                                      {"train_seconds", "Training time", "train", true, 4},
                                      {"peak_memory_bytes", "Peak memory", "memory", true, 6},
                                      {"latency_ms", "Latency p50 / p95, ms", "p50/p95 ms", true, 1},
                                      {"trained_bytes", "Trained size", "size", true, 7},
                                      {"cost_per_thousand", "Cost per 1,000", "per 1000", true, 5},
                                      {"vs_best", "Against the best", "vs best", false, 0}}) {
    columns.push_back(std::move(c));
  }
  return columns;
}

Cell score_cell(const Interval& i) {
  return {fmt::format("{} [{}]", format_percent_bare(i.value), format_interval(i)), format_plus_minus(i), i.value};
}

Cell bytes_cell(std::uint64_t bytes) {
  if (bytes == 0) return {kDash, kDash, 0};
  const std::string text = human_bytes(static_cast<double>(bytes));
  return {text, text, static_cast<double>(bytes)};
}

Cell cell_of(const TrialRecord& r, const std::string& key, const MetricName& metric) {
  const bool scored = r.n_scored > 0;
  if (key == "method") return {r.method, r.method, 0};
  if (key == "base_model") return r.base_model.empty() ? Cell{kDash, kDash, 0} : Cell{r.base_model, r.base_model, 0};
  if (key == "metric" && scored) return {metric.format(r.test_score), metric.format(r.test_score), r.test_score};
  if (key == "accuracy" && scored) return score_cell(r.scores.accuracy);
  if (key == "macro_precision" && scored) return score_cell(r.scores.macro_precision);
  if (key == "macro_recall" && scored) return score_cell(r.scores.macro_recall);
  if (key == "macro_f1" && scored) return score_cell(r.scores.macro_f1);
  if (key == "train_seconds")
    return {human_seconds(r.train_seconds), format_short_seconds(r.train_seconds), r.train_seconds};
  if (key == "peak_memory_bytes") return bytes_cell(r.peak_memory_bytes);
  if (key == "trained_bytes") return bytes_cell(r.trained_bytes);
  if (key == "latency_ms" && r.latency_p95_ms > 0) {
    const std::string p50 = format_ms(r.latency_p50_ms), p95 = format_ms(r.latency_p95_ms);
    return {p50 + " / " + p95, p50 + "/" + p95, r.latency_p50_ms};
  }
  if (key == "cost_per_thousand" && r.latency_p95_ms > 0) {
    const std::string cost = format_cost(r.cost_per_thousand);
    return {cost, cost, r.cost_per_thousand};
  }
  if (key == "vs_best" && scored && !r.verdict.empty()) {
    const double order = r.verdict == "best" ? 2 : r.p_value;
    return {r.verdict == "best" ? r.verdict : fmt::format("{} ({})", r.verdict, format_p(r.p_value)), r.verdict, order};
  }
  return {kDash, kDash, -std::numeric_limits<double>::max()};
}

int status_order(const TrialRecord& r) {
  if (r.ok()) return r.n_scored > 0 ? 0 : 1;
  return r.status == TrialStatus::kFailed ? 2 : 3;
}

const char* superscript(int n) {
  static constexpr const char* kMarks[] = {"", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  return kMarks[std::clamp(n, 0, 9)];
}

std::string marks(const Row& row) {
  std::string out;
  for (const int n : row.notes) out += superscript(n);
  return out.empty() ? out : " " + out;
}

class Footnotes {
 public:
  explicit Footnotes(std::vector<std::string>& all) : all_(all) {}
  int number(const std::string& text) {
    const auto it = std::find(all_.begin(), all_.end(), text);
    if (it != all_.end()) return static_cast<int>(it - all_.begin()) + 1;
    all_.push_back(text);
    return static_cast<int>(all_.size());
  }

 private:
  std::vector<std::string>& all_;
};

std::string status_words(const Row& row) {
  std::string text = row.status == TrialStatus::kFailed ? "failed" : "skipped";
  if (!row.reason.empty()) text += ": " + row.reason;
  return text;
}

/// Breaks at spaces; a word longer than the width is cut.
std::vector<std::string> wrap(const std::string& text, std::size_t width) {
  std::vector<std::string> lines;
  std::string line;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t end = std::min(text.find(' ', at), text.size());
    std::string word = text.substr(at, end - at);
    if (display_width(word) > width) word = fit_width(word, width);
    if (!line.empty() && display_width(line) + 1 + display_width(word) > width) {
      lines.push_back(std::move(line));
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
    at = end + 1;
  }
  if (!line.empty()) lines.push_back(std::move(line));
  return lines;
}

std::string trimmed_right(std::string line) {
  line.resize(line.find_last_not_of(' ') + 1);
  return line;
}

}  // namespace

ComparisonTable make_comparison_table(const std::vector<TrialRecord>& trials, const TableOptions& options) {
  const MetricName metric = metric_name(options.metric);
  ComparisonTable table;
  table.columns = make_columns(metric);
  std::vector<const TrialRecord*> order;
  for (const auto& r : trials) order.push_back(&r);
  std::stable_sort(order.begin(), order.end(), [](const TrialRecord* a, const TrialRecord* b) {
    if (status_order(*a) != status_order(*b)) return status_order(*a) < status_order(*b);
    return status_order(*a) == 0 && a->test_score > b->test_score;
  });
  const auto beyond_usual = [](const TrialRecord* r) {
    const Candidate* candidate = find_candidate_method(r->method);
    return r->status == TrialStatus::kSkipped && candidate != nullptr && !candidate->usual;
  };
  constexpr std::ptrdiff_t kShownBeyond = 3;  // more of them are one row
  const std::ptrdiff_t beyond = std::count_if(order.begin(), order.end(), beyond_usual);
  std::string names;
  Footnotes notes(table.footnotes);
  for (const TrialRecord* r : order) {
    if (beyond > kShownBeyond && beyond_usual(r)) {
      names += (names.empty() ? "" : ", ") + r->method;
      continue;
    }
    Row row;
    row.id = r->id;
    row.method = r->method;
    row.base_model = r->base_model;
    const auto title = options.titles.find(r->method);
    row.title = title == options.titles.end() ? "" : title->second;
    row.recommended = !options.recommended.empty() && r->id == options.recommended;
    row.status = r->status;
    if (r->ok()) {
      for (const Column& column : table.columns) row.cells.push_back(cell_of(*r, column.key, metric));
      row.quality = r->scores.accuracy;
      if (r->default_only && !r->settings.empty())
        row.notes.push_back(notes.number("default only: ran at a single setting, nothing was searched"));
      if (r->n_scored == 0) row.notes.push_back(notes.number("not scored on the test part"));
      if (r->n_scored > 0 && r->n_scored < options.n_test) {
        row.notes.push_back(notes.number(
            fmt::format("scored on a sample of {} of the {} test rows; compared with the best on these rows alone",
                        format_count(r->n_scored), format_count(options.n_test))));
      }
      if (r->before_refit) {
        row.notes.push_back(notes.number(fmt::format(
            "fitted once more on train + validation; the candidates were compared before that, at {} accuracy",
            format_percent(r->before_refit->value("accuracy", 0.0)))));
      }
    } else {
      row.reason = r->reason;
    }
    table.rows.push_back(std::move(row));
  }
  if (!names.empty()) {
    Row row;
    row.method = fmt::format("{} others", beyond);
    row.status = TrialStatus::kSkipped;
    row.reason = names + "; result.json says why for each";
    table.rows.push_back(std::move(row));
  }
  table.legend = fmt::format(
      "Scores are on test rows nobody fitted on, with 95 % intervals. Latency is of one request after warm-up, with "
      "tokenisation. "
      "Cost is of a thousand requests at {} a machine hour.",
      format_significant(options.price_per_hour, 2));
  return table;
}

std::string terminal_table(const ComparisonTable& table, const TerminalStyle& style) {
  constexpr std::size_t kGap = 2, kMark = 2;
  const std::size_t n = table.columns.size();
  const auto shown = [&](const Row& row, std::size_t c) {
    return one_line(row.cells[c].compact) + (c == 0 ? marks(row) : "");
  };
  std::vector<std::size_t> width(n);
  std::vector<bool> keep(n, true);
  for (std::size_t c = 0; c < n; ++c) width[c] = display_width(table.columns[c].short_header);
  for (const Row& row : table.rows) {
    for (std::size_t c = 0; c < row.cells.size(); ++c) width[c] = std::max(width[c], display_width(shown(row, c)));
    if (row.cells.empty()) {
      width[0] = std::max(width[0], display_width(one_line(row.method)));
      width[1] = std::max(width[1], display_width(one_line(row.base_model)));
    }
  }
  const auto total = [&] {
    std::size_t sum = kMark;
    for (std::size_t c = 0; c < n; ++c) sum += keep[c] ? width[c] + kGap : 0;
    return sum - kGap;
  };
  // First the columns that only a wide terminal gets, then shorter names, then further columns by rank.
  const auto drop_above = [&](int rank) {
    while (total() > style.width) {
      std::size_t worst = n;
      for (std::size_t c = 0; c < n; ++c) {
        if (keep[c] && table.columns[c].drop > rank &&
            (worst == n || table.columns[c].drop > table.columns[worst].drop))
          worst = c;
      }
      if (worst == n) return;
      keep[worst] = false;
    }
  };
  const auto shrink = [&](std::size_t c, std::size_t least) {
    const std::size_t over = total() > style.width ? total() - style.width : 0;
    if (keep[c] && width[c] > least) width[c] -= std::min(over, width[c] - least);
  };
  if (total() > style.width) {
    for (std::size_t c = 0; c < n; ++c) keep[c] = keep[c] && table.columns[c].drop <= 7;
  }
  shrink(1, 14);
  shrink(0, 14);
  drop_above(0);

  const auto line_of = [&](const std::string& mark, const auto& text) {
    std::string line = mark;
    for (std::size_t c = 0; c < n; ++c) {
      if (keep[c]) line += fit_width(text(c), width[c], table.columns[c].numeric) + std::string(kGap, ' ');
    }
    return trimmed_right(std::move(line));
  };
  std::string out = line_of("  ", [&](std::size_t c) { return table.columns[c].short_header; }) + "\n";
  for (const Row& row : table.rows) {
    if (!row.cells.empty()) {
      const std::string line = line_of(row.recommended ? "> " : "  ", [&](std::size_t c) { return shown(row, c); });
      out += (row.recommended && style.bold ? "\x1b[1m" + line + "\x1b[0m" : line) + "\n";
      continue;
    }
    std::string head = "  " + fit_width(one_line(row.method), width[0]);
    if (keep[1]) head += "  " + fit_width(row.base_model.empty() ? kDash : one_line(row.base_model), width[1]);
    head += "  ";
    const std::size_t indent = display_width(head);
    const auto lines = wrap(one_line(status_words(row)), style.width - indent);
    for (std::size_t i = 0; i < lines.size(); ++i) out += (i == 0 ? head : std::string(indent, ' ')) + lines[i] + "\n";
  }
  const bool any = std::any_of(table.rows.begin(), table.rows.end(), [](const Row& row) { return row.recommended; });
  std::vector<std::string> below;
  if (any) below.emplace_back("> recommended");
  for (std::size_t i = 0; i < table.footnotes.size(); ++i)
    below.push_back(std::string(superscript(static_cast<int>(i) + 1)) + " " + table.footnotes[i]);
  below.push_back(table.legend);
  out += "\n";
  for (const auto& text : below) {
    for (const auto& line : wrap(text, std::min<std::size_t>(style.width, 110) - 2)) out += "  " + line + "\n";
  }
  return out;
}

std::string escape_markdown(std::string_view text) {
  std::string out;
  for (const char c : one_line(text)) {
    if (std::string_view("\\`*_{}[]<>#|~&!").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string markdown_table(const ComparisonTable& table) {
  std::string out = "|", rule = "|";
  for (const Column& column : table.columns) {
    out += " " + escape_markdown(column.header) + " |";
    rule += column.numeric ? "---:|" : "---|";
  }
  out += "\n" + rule + "\n";
  for (const Row& row : table.rows) {
    out += "|";
    if (row.cells.empty()) {
      out += fmt::format(" {} | {} | {} |", escape_markdown(row.method),
                         row.base_model.empty() ? kDash : escape_markdown(row.base_model),
                         escape_markdown(status_words(row)));
      for (std::size_t c = 3; c < table.columns.size(); ++c) out += " |";
    } else {
      for (std::size_t c = 0; c < row.cells.size(); ++c) {
        std::string text = escape_markdown(row.cells[c].text);
        if (c == 0) text = (row.recommended ? "**" + text + "** (recommended)" : text) + marks(row);
        out += " " + text + " |";
      }
    }
    out += "\n";
  }
  if (!table.footnotes.empty()) out += "\n";
  for (std::size_t i = 0; i < table.footnotes.size(); ++i) {
    out += fmt::format("{} {}  \n", superscript(static_cast<int>(i) + 1), escape_markdown(table.footnotes[i]));
  }
  return out + "\n" + escape_markdown(table.legend) + "\n";
}

}  // namespace tailor
