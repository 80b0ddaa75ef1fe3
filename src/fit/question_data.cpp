#include "fit/question_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/unicode.h"
#include "text/word_spans.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

}  // namespace

Result<PreparedQuestions> prepare_questions(const TuneOptions& options) {
  PreparedQuestions data;
  QuestionReadOptions reading{.encoding = options.encoding};
  if (options.text_columns.size() == 2) {
    reading.question_key = options.text_columns[0];
    reading.context_key = options.text_columns[1];
  }
  const auto read_file = [&](const fs::path& file, Part part) -> Result<std::size_t> {
    TAILOR_TRY(QuestionRows read, read_question_rows(file, reading));
    const auto warn = [&](std::size_t n, const char* what) {
      if (n > 0) data.warnings.push_back(fmt::format("{}: {} {}", file.string(), n, what));
    };
    warn(read.moved, "answer(s) stand elsewhere than answer_start says: the nearest place counts");
    warn(read.absent, "row(s) whose answer is not in their text are left out");
    for (QuestionRow& row : read.rows) {
      if (part == Part::kTrain) data.no_answer = data.no_answer || row.begin == row.end;
      data.rows.push_back(std::move(row));
    }
    return read.rows.size();
  };
  TAILOR_TRY(const GivenParts given, read_files(options, read_file, data));
  std::vector<std::string> texts;
  std::vector<float> answered;
  for (const QuestionRow& row : data.rows) {
    texts.push_back(row.context);
    answered.push_back(row.begin < row.end ? 1.0f : 0.0f);
  }
  TAILOR_TRY(data.parts, split_rows(options, texts, label_strata(answered, 1), given));
  return data;
}

std::vector<QuestionWindow> question_windows(const QuestionRow& row, const Tokenizer& tokenizer, std::size_t limit) {
  return encode_question(tokenizer, row.question, row.context, word_spans(row.context),
                         {.tokens = limit,
                          .question = std::min(kQuestionTokens, limit / 3),
                          .overlap = std::min(kSpanOverlap, limit / 3)});
}

TokenFile tokenize_questions(const PreparedQuestions& data, const Tokenizer& tokenizer, std::size_t limit) {
  TokenFile file;
  file.vocab_size = static_cast<std::int32_t>(tokenizer.vocabulary_size());
  for (std::size_t r = 0; r < data.rows.size(); ++r) {
    const QuestionRow& row = data.rows[r];
    const auto words = word_spans(row.context);
    std::size_t first = 0;  // words of the answer: [first, end)
    while (first < words.size() && words[first].end <= row.begin) ++first;
    std::size_t end = first;
    while (end < words.size() && words[end].begin < row.end) ++end;
    for (const QuestionWindow& window : question_windows(row, tokenizer, limit)) {
      file.add_row(window.ids, -1, data.parts[r], static_cast<std::int64_t>(r));
      if (tokenizer.token_types() > 1) file.types.insert(file.types.end(), window.types.begin(), window.types.end());
      const bool whole =
          first < end && first >= window.first_word && end <= window.first_word + window.first_tokens.size();
      if (!whole) {
        file.spans.insert(file.spans.end(), {0, 0});
        continue;
      }
      file.spans.push_back(static_cast<std::int32_t>(window.first_tokens[first - window.first_word]));
      file.spans.push_back(static_cast<std::int32_t>(window.last_token(end - 1 - window.first_word)));
    }
  }
  return file;
}

SpanAnswer choose_span(const QuestionRow& row, std::span<const QuestionWindow> windows,
                       std::span<const std::vector<float>> scores, bool no_answer) {
  const auto words = word_spans(row.context);
  double best = -INFINITY, none = INFINITY, total = 0;
  std::size_t first = 0, last = 0;
  std::vector<double> all;
  for (std::size_t w = 0; w < windows.size(); ++w) {
    const QuestionWindow& window = windows[w];
    const std::vector<float>& z = scores[w];
    none = std::min(none, static_cast<double>(z[0]) + z[1]);
    for (std::size_t i = 0; i < window.first_tokens.size(); ++i) {
      const double start = z[2 * window.first_tokens[i]];
      for (std::size_t j = i; j < std::min(window.first_tokens.size(), i + kLongestAnswer); ++j) {
        const double score = start + z[2 * window.last_token(j) + 1];
        all.push_back(score);
        if (score <= best) continue;
        best = score;
        first = window.first_word + i;
        last = window.first_word + j;
      }
    }
  }
  SpanAnswer out;
  const bool answered = !all.empty() && !(no_answer && none > best);
  if (no_answer && !windows.empty()) all.push_back(none);
  if (all.empty()) return out;
  const double top = *std::max_element(all.begin(), all.end());
  for (const double score : all) total += std::exp(score - top);
  out.p = static_cast<float>(std::exp((answered ? best : none) - top) / total);
  if (!answered) return out;
  out.begin = words[first].begin;
  out.end = words[last].end;
  out.text = row.context.substr(out.begin, out.end - out.begin);
  return out;
}

Json span_answer_json(const QuestionRow& row, const SpanAnswer& answer) {
  const std::string_view context = row.context;
  const std::size_t start = count_code_points(context.substr(0, answer.begin));
  return Json{{"question", row.question},
              {"answer", answer.text},
              {"start", start},
              {"end", start + count_code_points(answer.text)},
              {"p", answer.p}};
}

}  // namespace tailor
