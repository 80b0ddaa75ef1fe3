#include "prompt/chat_encoder.h"

#include <gtest/gtest.h>

#include "model/test_support.h"

namespace tailor {
namespace {

constexpr const char* kChatMl =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}";
// Recognised by llama.cpp as Llama 3's, whose contents are stripped.
constexpr const char* kLlama3 = "<|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>";
// Mistral's: nothing but brackets around the user, and no token of its own ends a turn.
constexpr const char* kLlama2 = "[INST] <<SYS>>' + content + '<</SYS>> [/INST]";

const Tokenizer& tokenizer() {
  static const Tokenizer kTokenizer = Tokenizer::load(testing::smollm_file()).value();
  return kTokenizer;
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
  const ChatEncoder encoder(tokenizer(), kChatMl);
  const auto rows = encoder.rows(kTalk, std::vector<std::uint8_t>{0, 0, 1, 0, 1}).value();
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(learnt(rows[0]), "  Yes, from May.<|im_end|>No.<|im_end|>");
  EXPECT_EQ(shown(rows[0].tokens),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nIs the flat free?<|im_end|>\n"
            "<|im_start|>assistant\n  Yes, from May.<|im_end|>\n<|im_start|>user\n And\nthe garage?<|im_end|>\n"
            "<|im_start|>assistant\nNo.<|im_end|>");
}

// What is asked when serving is, token by token, what stood before the answer in training.
TEST(ChatEncoder, AsksInTheTokensOfTraining) {
  for (const char* chat_template : {kChatMl, kLlama3, kLlama2}) {
    const ChatEncoder encoder(tokenizer(), chat_template);
    const auto rows = encoder.rows(kTalk, std::vector<std::uint8_t>{0, 0, 1, 0, 1}).value();
    for (int answer = 0; answer < 2; ++answer) {
      const TrainingRow& row = rows[rows.size() == 1 ? 0 : static_cast<std::size_t>(answer)];
      const TokenList asked = encoder.prompt(std::span(kTalk).first(answer == 0 ? 2 : 4)).value();
      EXPECT_EQ(shown(before_answer(row, rows.size() == 1 ? answer : 0)), shown(asked)) << chat_template;
      EXPECT_EQ(before_answer(row, rows.size() == 1 ? answer : 0), asked) << chat_template;
    }
    EXPECT_TRUE(tokenizer().ends_generation(rows.back().tokens.back())) << chat_template;
  }
}

TEST(ChatEncoder, WeighsTurns) {
  const ChatEncoder encoder(tokenizer(), kChatMl);
  EXPECT_EQ(learnt(encoder.rows(kTalk, std::vector<std::uint8_t>{0, 0, 0, 0, 1}).value()[0]), "No.<|im_end|>");
  const auto first = encoder.rows(kTalk, std::vector<std::uint8_t>{0, 0, 1, 0, 0}).value();
  EXPECT_EQ(learnt(first[0]), "  Yes, from May.<|im_end|>");
  EXPECT_EQ(first[0].mask.back(), 1);  // nothing after the last learnt token
  EXPECT_FALSE(encoder.rows(kTalk, std::vector<std::uint8_t>(5, 0)));
}

TEST(ChatEncoder, ControlTokensInTextsStayText) {
  const ChatEncoder encoder(tokenizer(), kChatMl);
  const std::vector<ChatMessage> talk{{"user", "say <|im_end|>"}, {"assistant", "<|im_end|> it is"}};
  const auto rows = encoder.rows(talk, std::vector<std::uint8_t>{0, 1}).value();
  int ends = 0;
  for (const std::int32_t t : rows[0].tokens) ends += tokenizer().ends_generation(t) ? 1 : 0;
  EXPECT_EQ(ends, 2);  // one a turn
  EXPECT_EQ(learnt(rows[0]), "<|im_end|> it is<|im_end|>");
}

TEST(ChatEncoder, TemplatesThatStripTextsDoSoInBothPlaces) {
  const ChatEncoder encoder(tokenizer(), kLlama3);
  const auto rows = encoder.rows(kTalk, std::vector<std::uint8_t>{0, 0, 1, 0, 1}).value();
  EXPECT_TRUE(shown(rows[0].tokens).find("Yes, from May.") != std::string::npos);
  EXPECT_TRUE(shown(rows[0].tokens).find("  Yes") == std::string::npos) << shown(rows[0].tokens);
}

TEST(ChatEncoder, RawTextsEnd) {
  const ChatEncoder encoder(tokenizer(), "");
  const TrainingRow row = encoder.raw_row("2 + 2 =", " 4");
  EXPECT_EQ(learnt(row), " 4" + shown(std::vector<std::int32_t>{tokenizer().eos()}));
  EXPECT_EQ(before_answer(row, 0), encoder.raw_prompt("2 + 2 ="));
  EXPECT_FALSE(encoder.can_chat());
  EXPECT_FALSE(encoder.prompt(kTalk));
}

}  // namespace
}  // namespace tailor
