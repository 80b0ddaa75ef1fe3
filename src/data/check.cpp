#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "data/dataset.h"
#include "data/near_duplicates.h"
#include "data/report.h"
#include "text/edit_distance.h"
#include "text/unicode.h"

namespace tailor {
namespace {

constexpr std::size_t kSmallClass = 10;     // rows; below, scores of the class mean little
constexpr double kImbalance = 10;           // ratio of largest to smallest class
constexpr std::size_t kNumericLabels = 20;  // distinct numbers that no longer look like classes
constexpr std::size_t kManyLabels = 500;
constexpr std::size_t kEditCheckLabels = 3000;  // above, comparing all pairs is not worth its time
constexpr std::size_t kLongLabel = 100;         // code points

std::string in_quotes(std::string_view label) {
  return fmt::format("'{}'", shorten(label, 60));
}
std::string rows_word(std::size_t n) {
  return fmt::format("{} row{}", n, n == 1 ? "" : "s");
}

bool is_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

/// Letters and digits of a label: what is left when two people write it differently.
std::string letters_of(std::string_view label) {
  std::string out = skeleton(label);
  std::erase(out, ' ');
  return out;
}

bool has_digit(std::string_view s) {
  return std::any_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; });
}

/// One edit apart, and a word long enough that this is hardly chance.
bool likely_typo(const std::string& a, const std::string& b) {
  constexpr std::size_t kShortest = 5;
  if (std::min(a.size(), b.size()) < kShortest || has_digit(a) || has_digit(b)) return false;
  return edit_distance(a, b, 1) == 1;
}

class Checks {
 public:
  Checks(const Dataset& data, const DuplicateGroups& duplicates, DataReport& report)
      : data_(data), duplicates_(duplicates), report_(report), rows_(data.label_names.size(), 0) {
    for (const std::int32_t label : data.labels) ++rows_[static_cast<std::size_t>(label)];
  }

  void duplicates() {
    std::vector<std::uint32_t> exact_lines, near_lines, conflict_lines;
    std::vector<bool> near(data_.size(), false);
    for (const NearPair& pair : duplicates_.near) near[pair.first] = near[pair.second] = true;
    std::vector<std::int32_t> label_of_first(data_.size(), -1);
    std::vector<bool> conflict(data_.size(), false);
    for (std::size_t row = 0; row < data_.size(); ++row) {
      const std::uint32_t first = duplicates_.exact_of[row];
      if (first != row && data_.labels[first] != data_.labels[row]) conflict[first] = true;
      if (first != row) {
        ++report_.exact_duplicates;
        note_line(exact_lines, row);
      } else if (near[row]) {
        ++report_.near_duplicates;
        note_line(near_lines, row);
      }
    }
    for (std::size_t row = 0; row < data_.size(); ++row) {
      if (!conflict[duplicates_.exact_of[row]]) continue;
      ++report_.conflicting_duplicates;
      note_line(conflict_lines, row);
    }
    if (data_.size() > 1 && report_.exact_duplicates == data_.size() - 1) {
      report_.add({Severity::kError, "all_duplicates", fmt::format("all {} rows hold the same text", data_.size()),
                   "look whether the text column is the right one", data_.size(), std::move(exact_lines)});
      return;
    }
    if (report_.exact_duplicates > 0) {
      report_.add(
          {Severity::kNote, "exact_duplicates",
           fmt::format("{} whose text stood before (case and spacing aside); copies are kept in one part of the split",
                       rows_word(report_.exact_duplicates)),
           "", report_.exact_duplicates, std::move(exact_lines)});
    }
    if (report_.near_duplicates > 0) {
      report_.add({Severity::kNote, "near_duplicates",
                   fmt::format("{} almost the same as another; they are kept in one part of the split",
                               rows_word(report_.near_duplicates)),
                   "", report_.near_duplicates, std::move(near_lines)});
    }
    if (report_.conflicting_duplicates > 0) {
      report_.add(
          {Severity::kWarning, "conflicting_duplicates",
           fmt::format("{} share their text with a row of another label", rows_word(report_.conflicting_duplicates)),
           "decide which label is right; no model can learn both", report_.conflicting_duplicates,
           std::move(conflict_lines)});
    }
  }

  void class_sizes() {
    const auto [smallest, largest] = std::minmax_element(rows_.begin(), rows_.end());
    report_.imbalance_ratio = static_cast<double>(*largest) / static_cast<double>(*smallest);
    for (std::size_t i = 0; i < rows_.size(); ++i) report_.labels.push_back({data_.label_names[i], rows_[i]});
    if (rows_.size() == 1) {
      report_.add({Severity::kError,
                   "single_class",
                   fmt::format("all {} rows have the label {}, expected at least two labels", data_.size(),
                               in_quotes(data_.label_names[0])),
                   "a classifier needs rows of two labels or more; look whether the label column is the right one",
                   data_.size(),
                   {}});
      return;
    }
    if (*largest == 1) {
      report_.add(
          {Severity::kError,
           "labels_all_distinct",
           fmt::format("each of the {} rows has a label of its own, so there is nothing to learn from", data_.size()),
           "look whether the label column is the right one",
           data_.size(),
           {}});
      return;
    }
    report_classes(
        "single_row_class", [](std::size_t n) { return n == 1; },
        "with a single row can be used for training only, never tested");
    report_classes(
        "small_class", [](std::size_t n) { return n > 1 && n < kSmallClass; },
        fmt::format("with fewer than {} rows will have uncertain scores", kSmallClass));
    if (report_.imbalance_ratio >= kImbalance) {
      report_.add({Severity::kWarning,
                   "imbalance",
                   fmt::format("the classes are uneven: {} has {}, {} has {}",
                               in_quotes(data_.label_names[static_cast<std::size_t>(largest - rows_.begin())]),
                               rows_word(*largest),
                               in_quotes(data_.label_names[static_cast<std::size_t>(smallest - rows_.begin())]),
                               rows_word(*smallest)),
                   "judge by macro-F1 rather than accuracy",
                   rows_.size(),
                   {}});
    }
  }

  void label_names() {
    const bool numeric = std::all_of(data_.label_names.begin(), data_.label_names.end(), is_number);
    if (numeric && rows_.size() > kNumericLabels) {
      report_.add(
          {Severity::kWarning,
           "numeric_labels",
           fmt::format("all {} labels are numbers, which looks like an amount or an identifier rather than classes",
                       rows_.size()),
           "look whether the label column is the right one, or group the numbers into ranges",
           rows_.size(),
           {}});
    }
    if (rows_.size() > kManyLabels || (rows_.size() > 20 && rows_.size() * 3 > data_.size())) {
      report_.add({Severity::kWarning,
                   "too_many_labels",
                   fmt::format("there are {} labels for {} rows, {:.1f} rows a label", rows_.size(), data_.size(),
                               static_cast<double>(data_.size()) / static_cast<double>(rows_.size())),
                   "look whether the label column is the right one, or merge labels",
                   rows_.size(),
                   {}});
    }
    std::vector<std::uint32_t> lines;
    std::size_t count = 0;
    std::size_t example = 0;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      if (count_code_points(data_.label_names[i]) <= kLongLabel) continue;
      if (count++ == 0) example = i;
      add_line_of_label(lines, i);
    }
    if (count > 0) {
      report_.add({Severity::kWarning, "long_labels",
                   fmt::format("{} label{} longer than {} characters, such as {}", count, count == 1 ? " is" : "s are",
                               kLongLabel, in_quotes(data_.label_names[example])),
                   "look whether text and label columns are swapped", count, std::move(lines)});
    }
    if (!numeric) similar_labels();
  }

 private:
  void note_line(std::vector<std::uint32_t>& lines, std::size_t row) const {
    if (lines.size() < kExampleLines) lines.push_back(data_.lines[row]);
  }
  void add_line_of_label(std::vector<std::uint32_t>& lines, std::size_t label) const {
    if (lines.size() >= kExampleLines) return;
    const auto row =
        std::find(data_.labels.begin(), data_.labels.end(), static_cast<std::int32_t>(label)) - data_.labels.begin();
    lines.push_back(data_.lines[static_cast<std::size_t>(row)]);
  }

  template <typename Concerns>
  void report_classes(std::string code, Concerns concerns, std::string_view what) {
    std::vector<std::string> names;
    std::vector<std::uint32_t> lines;
    std::size_t count = 0;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      if (!concerns(rows_[i])) continue;
      ++count;
      if (names.size() < kExampleLines)
        names.push_back(rows_[i] == 1 ? in_quotes(data_.label_names[i])
                                      : fmt::format("{} ({})", in_quotes(data_.label_names[i]), rows_[i]));
      add_line_of_label(lines, i);
    }
    if (count == 0) return;
    report_.add({Severity::kWarning, std::move(code),
                 fmt::format("{} label{} {}: {}{}", count, count == 1 ? "" : "s", what, fmt::join(names, ", "),
                             count > names.size() ? ", …" : ""),
                 "add rows for them, or merge them into another label", count, std::move(lines)});
  }

  void similar_labels() {
    constexpr std::size_t kShown = 10;
    std::size_t shown = 0;
    for (const SimilarLabels& pair : find_similar_labels(data_.label_names, rows_)) {
      if (shown++ == kShown) break;
      std::vector<std::uint32_t> lines;
      for (std::size_t row = 0; row < data_.size() && lines.size() < kExampleLines; ++row) {
        if (data_.labels[row] == static_cast<std::int32_t>(pair.first)) lines.push_back(data_.lines[row]);
      }
      const std::size_t few = rows_[pair.first];
      const std::size_t many = rows_[pair.second];
      const bool suspicious = pair.same_letters || few * 5 <= many || few < kSmallClass;
      report_.add(
          {suspicious ? Severity::kWarning : Severity::kNote, "similar_labels",
           fmt::format("the labels {} ({}) and {} ({}) {}", in_quotes(data_.label_names[pair.first]), rows_word(few),
                       in_quotes(data_.label_names[pair.second]), rows_word(many),
                       pair.same_letters ? "differ only in case, spaces or punctuation" : "differ by one letter"),
           "if they are one label, write them alike", few, std::move(lines)});
    }
  }

  const Dataset& data_;
  const DuplicateGroups& duplicates_;
  DataReport& report_;
  std::vector<std::size_t> rows_;  // per label
};

}  // namespace

std::vector<SimilarLabels> find_similar_labels(std::span<const std::string> names, std::span<const std::size_t> rows) {
  std::vector<std::string> letters;
  letters.reserve(names.size());
  for (const std::string& name : names) letters.push_back(letters_of(name));
  std::vector<SimilarLabels> pairs;
  const auto add = [&](std::size_t a, std::size_t b, bool same) {
    if (rows[a] > rows[b]) std::swap(a, b);
    pairs.push_back({a, b, same});
  };
  std::vector<std::size_t> order(names.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return letters[a] < letters[b]; });
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (letters[order[i - 1]] == letters[order[i]]) add(order[i - 1], order[i], true);
  }
  if (names.size() > kEditCheckLabels) return pairs;
  for (std::size_t a = 0; a < names.size(); ++a) {
    for (std::size_t b = a + 1; b < names.size(); ++b) {
      if (letters[a] != letters[b] && likely_typo(letters[a], letters[b])) add(a, b, false);
    }
  }
  return pairs;
}

void check_dataset(const Dataset& data, const DuplicateGroups& duplicates, DataReport& report,
                   const TokenCounter& count_tokens) {
  if (data.size() == 0) return;
  Checks checks(data, duplicates, report);
  checks.class_sizes();
  checks.duplicates();
  checks.label_names();
  std::vector<std::size_t> lengths;
  lengths.reserve(data.size());
  for (const std::string& text : data.texts) lengths.push_back(count_code_points(text));
  report.characters = summarise_lengths(std::move(lengths));
  if (!count_tokens) return;
  std::vector<std::size_t> tokens;
  tokens.reserve(data.size());
  for (const std::string& text : data.texts) tokens.push_back(count_tokens(text));
  report.tokens = summarise_lengths(std::move(tokens));
}

}  // namespace tailor
