#include "serve/batch_input.h"

#include <gtest/gtest.h>

namespace tailor {
namespace {

constexpr const char* kChat = "/v1/chat/completions";

std::string line(const std::string& id, const Json& body = {{"model", "tiny"}}, const std::string& url = kChat,
                 const std::string& method = "POST") {
  return dump_json({{"custom_id", id}, {"method", method}, {"url", url}, {"body", body}}) + "\n";
}

class BatchInputTest : public ::testing::Test {
 protected:
  BatchInput read(const std::string& text, const BatchInputLimits& limits = {}, const std::string& endpoint = kChat) {
    const std::filesystem::path file = dir_.path() / "input.jsonl";
    write_file_atomic(file, text).value();
    return BatchInput::read(file, endpoint, limits, [](const std::string& model) { return model != "other"; }).value();
  }
  /// "line code param" of each error.
  static std::vector<std::string> told(const BatchInput& input) {
    std::vector<std::string> out;
    for (const Json& error : input.errors()) {
      EXPECT_FALSE(error["message"].get<std::string>().empty());
      out.push_back((error["line"].is_null() ? "-" : dump_json(error["line"])) + " " +
                    error["code"].get<std::string>() +
                    (error["param"].is_null() ? "" : " " + error["param"].get<std::string>()));
    }
    return out;
  }
  TemporaryDirectory dir_{"batch-input"};
};

TEST_F(BatchInputTest, FindsLinesAndTheirBodies) {
  const BatchInput input =
      read("\xEF\xBB\xBF" + line("a", {{"model", "tiny"}, {"x", "ä"}}) + "\r\n  \n" + line("b") +
           dump_json({{"custom_id", "c"}, {"method", "POST"}, {"url", kChat}, {"body", {{"model", "tiny"}}}}));
  EXPECT_TRUE(input.errors().empty()) << input.errors();
  ASSERT_EQ(input.lines().size(), 3U) << "the last one has no line end";
  EXPECT_EQ(input.lines()[2].custom_id, "c");
  EXPECT_EQ(input.body(0)["x"], "ä");
  EXPECT_EQ(input.body(2)["model"], "tiny");
  EXPECT_EQ(input.model(), "tiny");
  EXPECT_EQ(read(line("a") + line("b", {{"model", "small"}})).model(), "") << "several";
}

TEST_F(BatchInputTest, TellsEachWrongLine) {
  const std::string bad =
      line("a") + "{\"custom_id\": \n" + "[1]\n" + line("a") + line("b", {{"model", "tiny"}}, "/v1/embeddings") +
      line("c", {{"model", "tiny"}}, kChat, "GET") + line("d", {{"model", "other"}}) + line("e", "text") + line("") +
      line("f", {{"model", 7}}) + "{\"method\": \"POST\", \"url\": \"x\", \"body\": {}}\n" +
      "{\"custom_id\": \"g\", \"method\": \"POST\", \"url\": \"" + kChat + "\"}\n" +
      "{\"custom_id\": \"h\", \"custom_id\": \"i\"}\n";
  EXPECT_EQ(told(read(bad)),
            (std::vector<std::string>{"2 invalid_json_line", "3 invalid_json_line", "4 duplicate_custom_id custom_id",
                                      "5 invalid_url url", "6 invalid_method method", "7 model_not_found body.model",
                                      "8 invalid_value body", "9 invalid_value custom_id",
                                      "10 invalid_value body.model", "11 missing_required_parameter custom_id",
                                      "12 missing_required_parameter body", "13 invalid_json_line"}));
}

TEST_F(BatchInputTest, KeepsToItsLimits) {
  EXPECT_EQ(told(read("")), std::vector<std::string>{"- empty_file"});
  EXPECT_EQ(told(read("\n \n")), std::vector<std::string>{"- empty_file"});
  EXPECT_EQ(told(read(line("a") + line("b") + line("c"), {.lines = 2})), std::vector<std::string>{"3 too_many_lines"});
  EXPECT_EQ(told(read(line("a") + line("b", {{"x", std::string(500, 'x')}}), {.line_bytes = 200})),
            std::vector<std::string>{"2 line_too_long"});
  EXPECT_EQ(told(read(line(std::string(513, 'i')))), std::vector<std::string>{"1 invalid_value custom_id"});
  EXPECT_EQ(told(read("x\nx\nx\nx\n", {.errors = 2})),
            (std::vector<std::string>{"1 invalid_json_line", "2 invalid_json_line", "- more_errors"}));
}

TEST_F(BatchInputTest, WeighsLinesByTheAnswersTheyAskFor) {
  const auto weight = [&](const std::string& endpoint, const Json& body) {
    return read(line("a", body, endpoint), {}, endpoint).lines().at(0).answers;
  };
  EXPECT_EQ(weight(kChat, {{"n", 5}}), 5U);
  EXPECT_EQ(weight(kChat, {{"n", -5}}), 1U);
  EXPECT_EQ(weight("/v1/completions", {{"n", 2}, {"prompt", {"a", "b", "c"}}}), 6U);
  EXPECT_EQ(weight("/v1/completions", {{"prompt", {1, 2, 3}}}), 1U) << "token ids of one prompt";
  EXPECT_EQ(weight("/v1/embeddings", {{"input", "a"}}), 1U);
  EXPECT_EQ(weight("/v1/classify", {{"input", std::vector<std::string>(33, "a")}}), 3U);
}

}  // namespace
}  // namespace tailor
