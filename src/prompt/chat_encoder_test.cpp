#include "prompt/chat_encoder.h"

#include <gtest/gtest.h>

#include "core/json.h"
#include "model/test_support.h"

namespace tailor {
namespace {

const Json& golden() {
  static const Json kGolden = read_json(testing::golden("chat_templates.json")).value();
  return kGolden;
}
std::string source_of(const std::string& name) {
  return golden().at("templates").at(name).get<std::string>();
}

const Tokenizer& tokenizer() {
  static const Tokenizer kTokenizer = Tokenizer::load(testing::smollm_file()).value();
  return kTokenizer;
}
ChatEncoder encoder_of(const std::string& source) {
  return {tokenizer(), ChatTemplate::make(source, tokenizer()).value()};
}
std::string shown(std::span<const std::int32_t> tokens) {
  return tokenizer().decode(tokens, true);
}
std::string learnt(const TrainingRow& row) {
  TokenList tokens;
  for (std::size_t i = 0; i < row.tokens.size(); ++i) {
    if (row.mask[i] != 0) tokens.push_back(row.tokens[i]);
  }
  return shown(tokens);
}
TokenList before_answer(const TrainingRow& row, int which) {
  std::size_t at = 0;
  for (; which >= 0; --which) {
    while (row.mask[at] != 0) ++at;
    while (row.mask[at] == 0) ++at;
  }
  return {row.tokens.begin(), row.tokens.begin() + static_cast<std::ptrdiff_t>(at)};
}

const std::vector<ChatMessage> kTalk{{"system", "Be brief."},
                                     {"user", "Is the flat free?"},
                                     {"assistant", "  Yes, from May."},
                                     {"user", " And\nthe garage?"},
                                     {"assistant", "No."}};

TEST(ChatEncoder, LearnsTheAnswersAndTheirEnds) {
  const ChatEncoder encoder = encoder_of(source_of("chatml"));
  const auto rows = encoder.rows(kTalk, std::vector<std::uint8_t>{0, 0, 1, 0, 1}).value();
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(learnt(rows[0]), "  Yes, from May.<|im_end|>No.<|im_end|>");
  EXPECT_EQ(shown(rows[0].tokens),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nIs the flat free?<|im_end|>\n"
            "<|im_start|>assistant\n  Yes, from May.<|im_end|>\n<|im_start|>user\n And\nthe garage?<|im_end|>\n"
            "<|im_start|>assistant\nNo.<|im_end|>");
}

std::vector<ChatMessage> talk_with_calls() {
  std::vector<ChatMessage> out;
  for (const Json& m : golden().at("conversations").at("calls")) {
    ChatMessage message{m.at("role").get<std::string>(),
                        m.at("content").is_null() ? "" : m.at("content").get<std::string>()};
    message.tool_calls = m.value("tool_calls", Json());
    message.tool_call_id = m.value("tool_call_id", "");
    message.name = m.value("name", "");
    out.push_back(std::move(message));
  }
  out.push_back({"assistant", "You are welcome."});
  return out;
}

/// What is asked when serving is, token by token, what stood before the answer in training; every answer is learnt with
/// a token that ends it.
void expect_training_is_serving(const ChatEncoder& encoder, const std::vector<ChatMessage>& talk, const Json& tools,
                                const std::string& name) {
  std::vector<std::uint8_t> learn;
  std::vector<std::size_t> turns;
  for (std::size_t i = 0; i < talk.size(); ++i) {
    learn.push_back(talk[i].role == "assistant" ? 1 : 0);
    if (learn.back() != 0) turns.push_back(i);
  }
  const auto rows = encoder.rows(talk, learn, tools);
  ASSERT_TRUE(rows.has_value()) << name << ": " << rows.error().message;
  ASSERT_TRUE(rows->size() == 1 || rows->size() == turns.size()) << name;
  for (std::size_t k = 0; k < turns.size(); ++k) {
    const TrainingRow& row = (*rows)[rows->size() == 1 ? 0 : k];
    ASSERT_EQ(row.tokens.size(), row.mask.size());
    const TokenList before = before_answer(row, rows->size() == 1 ? static_cast<int>(k) : 0);
    const TokenList asked = encoder.prompt(std::span(talk).first(turns[k]), tools).value();
    EXPECT_EQ(shown(before), shown(asked)) << name;
    EXPECT_EQ(before, asked) << name;
    std::size_t end = before.size();
    while (end < row.mask.size() && row.mask[end] != 0) ++end;
    EXPECT_TRUE(tokenizer().ends_generation(row.tokens[end - 1])) << name << ": " << learnt(row);
    for (std::size_t i = before.size(); i + 1 < end; ++i)
      EXPECT_FALSE(tokenizer().ends_generation(row.tokens[i])) << name;
  }
}

TEST(ChatEncoder, AsksInTheTokensOfTrainingForEveryTemplate) {
  for (const auto& [name, source] : golden().at("templates").items()) {
    const ChatTemplate chat = ChatTemplate::make(source.get<std::string>(), tokenizer()).value();
    const ChatEncoder encoder(tokenizer(), chat);
    expect_training_is_serving(encoder, kTalk, nullptr, name);
    if (!chat.abilities().tool_calls || !chat.abilities().tool_answers) continue;
    expect_training_is_serving(encoder, talk_with_calls(), nullptr, name + " with calls");
    if (chat.abilities().tools)
      expect_training_is_serving(encoder, talk_with_calls(), golden().at("tools"), name + " with tools");
  }
}

TEST(ChatEncoder, LearnsCallsOfTools) {
  const ChatEncoder encoder = encoder_of(source_of("qwen-tools"));
  const std::vector<std::uint8_t> learn{0, 1, 0, 1, 0, 0};
  const auto rows = encoder.rows(talk_with_calls(), learn, golden().at("tools")).value();
  // The template shows a thought with the last answer alone, so each answer is a row of its own.
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_TRUE(learnt(rows[0]).starts_with(
      "<think>\n\n</think>\n\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\""))
      << learnt(rows[0]);
  EXPECT_TRUE(learnt(rows[0]).ends_with("}\n</tool_call><|im_end|>")) << learnt(rows[0]);
  EXPECT_TRUE(learnt(rows[1]).ends_with("21 degrees.<|im_end|>")) << learnt(rows[1]);
}

TEST(ChatEncoder, OneRowWhereTheTemplateAllowsIt) {
  const std::vector<std::uint8_t> learn{0, 0, 1, 0, 1};
  EXPECT_EQ(encoder_of(source_of("chatml")).rows(kTalk, learn).value().size(), 1u);
  EXPECT_EQ(encoder_of(source_of("generation")).rows(kTalk, learn).value().size(), 1u);
  EXPECT_EQ(encoder_of(source_of("qwen-tools")).rows(kTalk, learn).value().size(), 2u);  // thoughts
  EXPECT_EQ(encoder_of(source_of("llama3")).rows(kTalk, learn).value().size(),
            2u);  // <|eot_id|> is no token of SmolLM2
  // An answer is opened with a thought that is not shown later: the thought is asked, not learnt.
  const auto rows = encoder_of(source_of("deepseek")).rows(kTalk, learn).value();
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_TRUE(shown(rows[1].tokens).ends_with("<|Assistant|><think>\nNo.<|im_end|>")) << shown(rows[1].tokens);
  EXPECT_EQ(learnt(rows[1]), "No.<|im_end|>");
}

TEST(ChatEncoder, WeighsTurns) {
  const ChatEncoder encoder = encoder_of(source_of("chatml"));
  EXPECT_EQ(learnt(encoder.rows(kTalk, std::vector<std::uint8_t>{0, 0, 0, 0, 1}).value()[0]), "No.<|im_end|>");
  const auto first = encoder.rows(kTalk, std::vector<std::uint8_t>{0, 0, 1, 0, 0}).value();
  EXPECT_EQ(learnt(first[0]), "  Yes, from May.<|im_end|>");
  EXPECT_EQ(first[0].mask.back(), 1);  // nothing after the last learnt token
  EXPECT_FALSE(encoder.rows(kTalk, std::vector<std::uint8_t>(5, 0)));
}

TEST(ChatEncoder, ControlTokensInTextsStayText) {
  const ChatEncoder encoder = encoder_of(source_of("chatml"));
  const std::vector<ChatMessage> talk{{"user", "say <|im_end|>"}, {"assistant", "<|im_end|> it is"}};
  const auto rows = encoder.rows(talk, std::vector<std::uint8_t>{0, 1}).value();
  int ends = 0;
  for (const std::int32_t t : rows[0].tokens) ends += tokenizer().ends_generation(t) ? 1 : 0;
  EXPECT_EQ(ends, 2);  // one a turn
  EXPECT_EQ(learnt(rows[0]), "<|im_end|> it is<|im_end|>");
}

TEST(ChatEncoder, TemplatesThatStripTextsDoSoInBothPlaces) {
  const auto rows = encoder_of(source_of("llama3")).rows(kTalk, std::vector<std::uint8_t>{0, 0, 1, 0, 1}).value();
  EXPECT_TRUE(shown(rows[1].tokens).find("Yes, from May.") != std::string::npos);
  EXPECT_TRUE(shown(rows[1].tokens).find("  Yes") == std::string::npos) << shown(rows[1].tokens);
  EXPECT_EQ(learnt(rows[0]), "Yes, from May.<|eot_id|><|im_end|>");
}

TEST(ChatEncoder, RawTextsEnd) {
  const ChatEncoder encoder(tokenizer(), std::nullopt);
  const TrainingRow row = encoder.raw_row("2 + 2 =", " 4");
  EXPECT_EQ(learnt(row), " 4" + shown(std::vector<std::int32_t>{tokenizer().eos()}));
  EXPECT_EQ(before_answer(row, 0), encoder.raw_prompt("2 + 2 ="));
  EXPECT_FALSE(encoder.can_chat());
  EXPECT_FALSE(encoder.prompt(kTalk));
}

}  // namespace
}  // namespace tailor
