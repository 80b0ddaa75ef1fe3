#include "data/question_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "core/json_lines.h"
#include "data/csv_text.h"
#include "text/unicode.h"

namespace tailor {
namespace {

constexpr std::string_view kShape =
    R"({"question": "…", "context": "…", "answers": {"text": ["…"], "answer_start": [17]}})";

struct Answer {
  std::string text;
  std::optional<std::size_t> start;  // code points
};

class Reader {
 public:
  Reader(std::string file, const QuestionReadOptions& options) : file_(std::move(file)), options_(options) {}

  Status add_row(const Json& row, std::uint32_t line) {
    if (!row.is_object()) return wrong(line, "expected an object");
    TAILOR_TRY(std::string context, text_of(row, options_.context_key, line));
    return add_question(row, std::move(context), line);
  }

  /// SQuAD's own nesting.
  Status add_articles(const Json& data) {
    std::uint32_t line = 0;
    for (const Json& article : data) {
      if (!article.is_object() || !article.contains("paragraphs"))
        return wrong(line + 1, "an article has no \"paragraphs\"");
      for (const Json& paragraph : article.at("paragraphs")) {
        TAILOR_TRY(const std::string context, text_of(paragraph, "context", line + 1));
        if (!paragraph.contains("qas")) return wrong(line + 1, "a paragraph has no \"qas\"");
        for (const Json& question : paragraph.at("qas")) TAILOR_CHECK(add_question(question, context, ++line));
      }
    }
    return {};
  }

  QuestionRows out;

 private:
  Error wrong(std::uint32_t line, std::string what) const {
    return {ErrorCode::kInvalidArgument, fmt::format("{}:{}: {}", file_, line, what),
            fmt::format("a row is {}", kShape)};
  }

  Result<std::string> text_of(const Json& row, const std::string& key, std::uint32_t line) const {
    if (!row.is_object() || !row.contains(key) || !row.at(key).is_string() || is_blank(row.at(key).get<std::string>()))
      return wrong(line, fmt::format("it has no text \"{}\"", key));
    return row.at(key).get<std::string>();
  }

  Result<std::vector<Answer>> answers_of(const Json& row, bool& known, std::uint32_t line) const {
    std::vector<Answer> answers;
    const auto start_of = [](const Json& value) {
      return value.is_number_unsigned() ? std::optional(value.get<std::size_t>()) : std::nullopt;
    };
    const auto bad = [&] { return wrong(line, "its answers are not texts with \"answer_start\""); };
    known = row.contains("answers") || row.contains("answer") || row.value("is_impossible", Json()) == true;
    if (row.value("is_impossible", Json()) == true) return answers;
    if (row.contains("answer")) {
      if (!row.at("answer").is_string()) return bad();
      answers.push_back({row.at("answer"), start_of(row.value("answer_start", Json()))});
    } else if (row.contains("answers")) {
      const Json& given = row.at("answers");
      if (given.is_object()) {
        const Json texts = given.value("text", Json()), starts = given.value("answer_start", Json());
        if (!texts.is_array()) return bad();
        for (std::size_t i = 0; i < texts.size(); ++i) {
          if (!texts[i].is_string()) return bad();
          answers.push_back({texts[i], starts.is_array() && i < starts.size() ? start_of(starts[i]) : std::nullopt});
        }
      } else if (given.is_array()) {
        for (const Json& one : given) {
          if (one.is_string())
            answers.push_back({one, std::nullopt});
          else if (one.is_object() && one.value("text", Json()).is_string())
            answers.push_back({one.at("text"), start_of(one.value("answer_start", Json()))});
          else
            return bad();
        }
      } else {
        return bad();
      }
    }
    std::erase_if(answers, [](const Answer& a) { return trim(a.text).empty(); });
    return answers;
  }

  Status add_question(const Json& row, std::string context, std::uint32_t line) {
    QuestionRow q{.context = std::move(context), .line = line};
    TAILOR_TRY(q.question, text_of(row, options_.question_key, line));
    TAILOR_TRY(const std::vector<Answer> answers, answers_of(row, q.known, line));
    if (!q.known && options_.needs_answers) return wrong(line, "it has no answers");
    for (const Answer& answer : answers) q.answers.push_back(answer.text);
    if (!answers.empty() && !place(answers.front(), q)) {
      ++out.absent;
      if (options_.needs_answers) return {};
    }
    out.rows.push_back(std::move(q));
    return {};
  }

  /// Where the answer stands: as said, else at the place nearest to that.
  bool place(const Answer& answer, QuestionRow& q) {
    const std::string_view text = trim(answer.text);
    const std::string_view context = q.context;
    std::size_t wanted = 0;
    if (answer.start) {
      std::size_t points = *answer.start + count_code_points(answer.text.substr(
                                               0, static_cast<std::size_t>(text.data() - answer.text.data())));
      while (wanted < context.size() && points > 0) {
        ++wanted;
        while (wanted < context.size() && (static_cast<unsigned char>(context[wanted]) & 0xC0) == 0x80) ++wanted;
        --points;
      }
    }
    std::size_t best = std::string_view::npos;
    for (std::size_t at = context.find(text); at != std::string_view::npos; at = context.find(text, at + 1)) {
      const auto distance = [&](std::size_t p) { return p > wanted ? p - wanted : wanted - p; };
      if (best == std::string_view::npos || distance(at) < distance(best)) best = at;
      if (at > wanted) break;
    }
    if (best == std::string_view::npos) return false;
    out.moved += answer.start && best != wanted ? 1 : 0;
    q.begin = static_cast<std::uint32_t>(best);
    q.end = static_cast<std::uint32_t>(best + text.size());
    return true;
  }

  const std::string file_;
  const QuestionReadOptions& options_;
};

}  // namespace

Result<QuestionRows> read_question_rows(const std::filesystem::path& file, const QuestionReadOptions& options) {
  TAILOR_TRY(const CsvText content, CsvText::open(file, options.encoding));
  const std::string_view text = content.view();
  Reader reader(file.string(), options);
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  const bool lines = first != std::string_view::npos && text[first] == '{' &&
                     !Json::accept(text.begin(), text.end());  // one object is the whole file, or a line of it
  if (lines) {
    TAILOR_CHECK(each_json_line(text, file.string(),
                                [&](const Json& row, std::uint32_t number) { return reader.add_row(row, number); }));
  } else {
    TAILOR_TRY(const Json whole, parse_json(text, file.string()));
    if (whole.is_object() && whole.contains("data")) {
      TAILOR_CHECK(reader.add_articles(whole.at("data")));
    } else if (whole.is_array()) {
      std::uint32_t place = 0;
      for (const Json& row : whole) TAILOR_CHECK(reader.add_row(row, ++place));
    } else {
      TAILOR_CHECK(reader.add_row(whole, 1));
    }
  }
  if (reader.out.rows.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: it has no question that its text answers", file.string()),
                 fmt::format("a row is {}", kShape)};
  }
  return std::move(reader.out);
}

}  // namespace tailor
