#include "data/question_rows.h"

#include <gtest/gtest.h>

#include "core/files.h"

namespace tailor {
namespace {

class QuestionRowsTest : public ::testing::Test {
 protected:
  Result<QuestionRows> read(const std::string& content, QuestionReadOptions options = {}) {
    write_file_atomic(dir_.path() / "a.jsonl", content).value();
    return read_question_rows(dir_.path() / "a.jsonl", options);
  }
  static std::string answer(const QuestionRow& row) { return row.context.substr(row.begin, row.end - row.begin); }
  const TemporaryDirectory dir_;
};

TEST_F(QuestionRowsTest, ReadsRowsInTheirShapes) {
  const QuestionRows data =
      read(
          R"({"question": "q", "context": "Zoë is in Oslo, not Oslo", "answers": {"text": ["Oslo", "in Oslo"], "answer_start": [20, 7]}}
{"question": "q", "context": "a b", "answers": [{"text": "b", "answer_start": 2}]}

{"question": "q", "context": "a b a", "answer": "a"}
{"question": "q", "context": "a b", "answers": {"text": [], "answer_start": []}}
{"question": "q", "context": "a b", "answers": [], "is_impossible": true}
{"question": "q", "context": "a b c", "answers": {"text": ["c"], "answer_start": [0]}}
{"question": "q", "context": "a b c", "answers": {"text": ["d"], "answer_start": [0]}}
)")
          .value();
  ASSERT_EQ(data.rows.size(), 6u);
  EXPECT_EQ(answer(data.rows[0]), "Oslo");
  EXPECT_EQ(data.rows[0].begin, 21u);  // bytes: the second one
  EXPECT_EQ(data.rows[0].answers, (std::vector<std::string>{"Oslo", "in Oslo"}));
  EXPECT_EQ(data.rows[1].begin, 2u);
  EXPECT_EQ(data.rows[2].line, 4u);
  EXPECT_EQ(data.rows[2].begin, 0u);
  for (const std::size_t none : {3u, 4u}) {
    EXPECT_TRUE(data.rows[none].known);
    EXPECT_EQ(data.rows[none].begin, data.rows[none].end);
  }
  EXPECT_EQ(data.rows[5].begin, 4u);
  EXPECT_EQ(data.moved, 1u);
  EXPECT_EQ(data.absent, 1u);
}

TEST_F(QuestionRowsTest, ReadsSquadsOwnFiles) {
  const QuestionRows data =
      read(R"({"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "a b", "qas": [
    {"id": "1", "question": "q", "answers": [{"text": "b", "answer_start": 2}], "is_impossible": false},
    {"id": "2", "question": "r", "answers": [], "is_impossible": true}]}]}]})")
          .value();
  ASSERT_EQ(data.rows.size(), 2u);
  EXPECT_EQ(answer(data.rows[0]), "b");
  EXPECT_EQ(data.rows[1].question, "r");
  EXPECT_TRUE(data.rows[1].answers.empty());
}

TEST_F(QuestionRowsTest, SayWhatIsWrong) {
  const auto refused = [&](const std::string& content, const std::string& part) {
    const auto result = read(content);
    ASSERT_FALSE(result.has_value()) << content;
    EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
  };
  refused("{\"question\": \"q\"}", "a.jsonl:1: it has no text \"context\"");
  refused("{\"question\": \"q\", \"context\": \"c\"}\n{\"question\": \"q\", \"context\": \"c\"}", "it has no answers");
  refused("{\"question\": \"q\", \"context\": \"c\", \"answers\": 7}", "its answers are not texts");
  refused("{\"question\": \"q\", \"context\": \"c\", \"answer\": \"x\"}", "no question that its text answers");
  refused("{\"data\": [{}]}", "no \"paragraphs\"");
  refused("{\"question\": ", "a.jsonl");
  EXPECT_TRUE(read("{\"question\": \"q\", \"context\": \"c\"}", {.needs_answers = false}).has_value());
}

}  // namespace
}  // namespace tailor
