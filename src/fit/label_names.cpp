#include "fit/label_names.h"

#include <algorithm>
#include <set>

namespace tailor {
namespace {

bool is_digit(unsigned char c) {
  return c >= '0' && c <= '9';
}
bool is_upper(unsigned char c) {
  return c >= 'A' && c <= 'Z';
}
bool is_lower(unsigned char c) {
  return c >= 'a' && c <= 'z';
}
bool is_letter(unsigned char c) {
  return is_upper(c) || is_lower(c) || c >= 0x80;
}

std::vector<std::string> split_words(const std::string& name) {
  std::vector<std::string> words;
  bool inside = false;
  unsigned char before = 0;
  for (const char letter : name) {
    const auto c = static_cast<unsigned char>(letter);
    if (!is_letter(c) && !is_digit(c)) {
      inside = false;
    } else {
      if (!inside || (is_upper(c) && is_lower(before))) words.emplace_back();
      words.back() += letter;
      inside = true;
    }
    before = c;
  }
  return words;
}

double mean_square_length(const Matrix& x) {
  double sum = 0;
  for (const float v : x.data) sum += static_cast<double>(v) * v;
  return x.rows == 0 ? 1 : std::max(1e-12, sum / static_cast<double>(x.rows));
}

}  // namespace

std::vector<std::string> label_words(std::span<const std::string> labels) {
  std::vector<std::string> out;
  std::set<std::string> seen;  // without digits, in lower case
  for (const std::string& label : labels) {
    std::string text, letters_alone;
    bool has_word = false;
    for (const std::string& word : split_words(label)) {
      if (!text.empty()) text += ' ';
      text += word;
      std::size_t letters = 0;
      for (const char letter : word) {
        const auto c = static_cast<unsigned char>(letter);
        if (!is_letter(c)) continue;
        letters_alone += is_upper(c) ? static_cast<char>(c - 'A' + 'a') : letter;
        ++letters;
      }
      letters_alone += ' ';
      has_word = has_word || letters >= 3;
    }
    if (!has_word || !seen.insert(letters_alone).second) return {};
    out.push_back(std::move(text));
  }
  return out;
}

LabelledVectors joined(const LabelledVectors& rows, const LabelledVectors& more) {
  LabelledVectors out = rows;
  out.x.data.insert(out.x.data.end(), more.x.data.begin(), more.x.data.end());
  out.x.rows += more.x.rows;
  out.x.cols = std::max(rows.x.cols, more.x.cols);
  out.labels.insert(out.labels.end(), more.labels.begin(), more.labels.end());
  return out;
}

Result<bool> label_names_help(const LabelledVectors& rows, const LabelledVectors& names,
                              std::span<const RowSplit> splits, int classes, double c, int threads,
                              const CancelToken& cancel) {
  const LogisticOptions options{.c = c / mean_square_length(rows.x), .threads = threads};
  double without = 0, with = 0;  // log loss, summed over held-out rows
  const auto at = [&](const std::vector<std::size_t>& positions) {
    LabelledVectors out{gather_rows(rows.x, positions), {}};
    for (const std::size_t p : positions) out.labels.push_back(rows.labels[p]);
    return out;
  };
  for (const RowSplit& split : splits) {
    const LabelledVectors held_out = at(split.validation);
    if (held_out.labels.empty()) continue;
    const LabelledVectors train = at(split.train);
    const auto loss_of = [&](const LabelledVectors& learnt) -> Result<double> {
      TAILOR_TRY(const LogisticModel model,
                 fit_logistic(learnt.x, learnt.labels, classes, options, {}, nullptr, &cancel));
      return log_loss(held_out.labels, model.probabilities(held_out.x, threads)) *
             static_cast<double>(held_out.labels.size());
    };
    TAILOR_TRY(const double plain, loss_of(train));
    TAILOR_TRY(const double named, loss_of(joined(train, names)));
    without += plain;
    with += named;
  }
  return with < without;
}

}  // namespace tailor
