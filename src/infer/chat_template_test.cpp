#include "infer/chat_template.h"

#include <gtest/gtest.h>

#include "model/gguf_file.h"
#include "model/test_support.h"

namespace tailor {
namespace {

using testing::expect_error;

const Json& golden() {
  static const Json kGolden = [] {
    setenv("TZ", "UTC", 1);
    return read_json(testing::golden("chat_templates.json")).value();
  }();
  return kGolden;
}

const Tokenizer& tokenizer() {
  static const Tokenizer kTokenizer = Tokenizer::load(testing::smollm_file()).value();
  return kTokenizer;
}

const std::string& own_template() {
  static const std::string kSource =
      GgufFile::open(testing::smollm_file()).value().string("tokenizer.chat_template").value();
  return kSource;
}

ChatTemplate make(const std::string& source) {
  // The golden file spells <s> and </s>; SmolLM2 spells its own.
  const Json variables = source == own_template() ? Json::object() : Json{{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  return ChatTemplate::make(source, tokenizer(), {.variables = variables, .now = golden().at("now").get<std::time_t>()})
      .value();
}

ChatTemplate named(const std::string& name) {
  return make(golden().at("templates").at(name).get<std::string>());
}

std::vector<ChatMessage> conversation(const std::string& name) {
  std::vector<ChatMessage> out;
  for (const Json& m : golden().at("conversations").at(name)) {
    ChatMessage message{m.at("role").get<std::string>(),
                        m.at("content").is_null() ? "" : m.at("content").get<std::string>()};
    message.tool_calls = m.value("tool_calls", Json());
    message.tool_call_id = m.value("tool_call_id", "");
    message.name = m.value("name", "");
    out.push_back(std::move(message));
  }
  return out;
}

/// Byte for byte what transformers makes of the same, where both take the conversation. What ours does beyond it is
/// tested below: a system's message where there is no place for one, calls in templates without them.
TEST(ChatTemplate, RendersAsTransformersDoes) {
  int equal = 0;
  for (const Json& c : golden().at("cases")) {
    const auto name = c.at("template").get<std::string>(), talk = c.at("conversation").get<std::string>();
    const ChatTemplate chat = name.empty() ? make(own_template()) : named(name);
    const bool with_tools = c.at("tools").get<bool>();
    const ChatAbilities& can = chat.abilities();
    const auto messages = conversation(talk);
    const bool calls = talk == "call" || talk == "calls";
    if ((with_tools && !can.tools) || (calls && !(can.tool_calls && can.tool_answers))) {
      expect_error(chat.render(messages, with_tools ? golden().at("tools") : Json(), c.at("follows").get<bool>()),
                   ErrorCode::kInvalidArgument, "has no place for");
      continue;
    }
    if (messages[0].role == "system" && !can.system) continue;
    if (calls && can.argument_text) continue;  // transformers is given the arguments as an object
    const auto out = chat.render(messages, with_tools ? golden().at("tools") : Json(), c.at("follows").get<bool>());
    if (c.at("out").is_null()) {
      EXPECT_TRUE(calls || !out.has_value()) << name << " " << talk;  // calls: ours goes on with "" for null
      continue;
    }
    ASSERT_TRUE(out.has_value()) << name << " " << talk << ": " << out.error().message;
    EXPECT_EQ(out->bytes, c.at("out").get<std::string>()) << name << " " << talk;
    ++equal;
  }
  EXPECT_GT(equal, 150);
}

TEST(ChatTemplate, FindsWhatATemplateHasAPlaceFor) {
  EXPECT_TRUE(make(own_template()).abilities().system);
  EXPECT_FALSE(make(own_template()).abilities().tools);
  EXPECT_FALSE(named("gemma").abilities().system);
  for (const char* name : {"llama3", "mistral-tools", "qwen-tools"}) {
    const ChatAbilities can = named(name).abilities();
    EXPECT_TRUE(can.tools && can.tool_calls && can.tool_answers && !can.argument_text) << name;
  }
  const ChatAbilities deepseek = named("deepseek").abilities();
  EXPECT_TRUE(deepseek.argument_text && deepseek.tool_calls && deepseek.tool_answers && !deepseek.tools);
  EXPECT_FALSE(named("chatml").abilities().tool_calls);
}

TEST(ChatTemplate, ASystemsMessageWithoutAPlaceBeginsTheUsers) {
  const std::vector<ChatMessage> talk{{"system", "Be brief."}, {"user", "Hi"}};
  EXPECT_EQ(named("gemma").render(talk, nullptr, true).value().bytes,
            "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n");
}

TEST(ChatTemplate, ArgumentsInTheFormThatTheTemplateWants) {
  const std::string shown = named("deepseek").render(conversation("call"), nullptr, false).value().bytes;
  EXPECT_NE(shown.find("```json\n{\"city\":\"Zürich\",\"days\":2"), std::string::npos) << shown;
}

TEST(ChatTemplate, MarksWhatPeopleWrote) {
  const std::vector<ChatMessage> talk{{"user", "<|im_end|>"}};
  const MarkedText shown = named("chatml").render(talk, nullptr, true).value();
  ASSERT_EQ(shown.foreign.size(), 1u);
  EXPECT_EQ(shown.bytes.substr(shown.foreign[0].begin, shown.foreign[0].end - shown.foreign[0].begin), "<|im_end|>");
}

TEST(ChatTemplate, VariablesOfTheTemplate) {
  const auto source = golden().at("templates").at("qwen-tools").get<std::string>();
  const std::vector<ChatMessage> talk{{"user", "Hi"}};
  const auto thinks = [&](const Json& variables) {
    const ChatTemplate chat = ChatTemplate::make(source, tokenizer(), {.variables = variables}).value();
    return chat.render(talk, nullptr, true).value().bytes;
  };
  EXPECT_EQ(thinks(Json::object()), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(thinks({{"enable_thinking", false}}),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
}

TEST(ChatTemplate, ANamedTemplateForTools) {
  const std::vector<ChatMessage> talk{{"user", "Hi"}};
  const std::string with_tools =
      "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools | length if tools else '' }}";
  const ChatTemplate chat = ChatTemplate::make(ChatTemplate::chatml(), tokenizer(), {.tool_use = with_tools}).value();
  EXPECT_EQ(chat.render(talk, nullptr, true).value().bytes, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_FALSE(chat.abilities().tools);
  // It shows how many tools there are, but none of them.
  expect_error(chat.render(talk, golden().at("tools"), true), ErrorCode::kInvalidArgument, "has no place for tools");
  const ChatTemplate better =
      ChatTemplate::make(
          ChatTemplate::chatml(), tokenizer(),
          {.tool_use = "{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}{% for m in messages %}{{ "
                       "m.content }}{% endfor %}"})
          .value();
  EXPECT_EQ(better.render(talk, golden().at("tools"), true).value().bytes, "[get_weather][add]Hi");
  EXPECT_TRUE(better.abilities(true).tools);
  expect_error(ChatTemplate::make(ChatTemplate::chatml(), tokenizer(), {.tool_use = "{% if %}"}),
               ErrorCode::kUnavailable, "cannot be read");
}

TEST(ChatTemplate, VariablesThatNothingReadsAreRefused) {
  const auto made = [&](const Json& variables) {
    return ChatTemplate::make(ChatTemplate::chatml(), tokenizer(), {.variables = variables});
  };
  expect_error(made({{"enable_thinking", false}}), ErrorCode::kInvalidArgument, "reads no variable enable_thinking");
  expect_error(made({{"tools", Json::array()}}), ErrorCode::kInvalidArgument, "cannot be set");
  EXPECT_TRUE(made({{"bos_token", "<s>"}}).has_value());
}

TEST(ChatTemplate, DatesAreTheClocksHands) {
  const std::time_t now = golden().at("now").get<std::time_t>();
  EXPECT_EQ(template_date(now), "2026-06-01T12:00:00");
  EXPECT_EQ(read_template_date("2026-06-01T12:00:00"), now);
  for (const char* text : {"", "2026-06-01", "2026-06-01T12:00:00Z", "2026-13-01T12:00:00"})
    EXPECT_FALSE(read_template_date(text)) << text;
}

TEST(ChatTemplate, ContentsInParts) {
  const ChatTemplate chat =
      ChatTemplate::make(
          "{% for m in messages %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif "
          "%}{% endfor %}{% endfor %}",
          tokenizer())
          .value();
  EXPECT_TRUE(chat.abilities().content_parts);
  EXPECT_EQ(chat.render(std::vector<ChatMessage>{{"user", "Hi"}}, nullptr, true).value().bytes, "Hi");
}

TEST(ChatTemplate, SaysWhatIsWrong) {
  expect_error(ChatTemplate::make("", tokenizer()), ErrorCode::kInvalidArgument, "no chat template");
  expect_error(ChatTemplate::make("{% if %}", tokenizer()), ErrorCode::kUnavailable, "cannot be read");
  expect_error(ChatTemplate::make("always the same", tokenizer()), ErrorCode::kUnavailable,
               "does not show what the user says");
  expect_error(ChatTemplate::make("{{ raise_exception('never') }}", tokenizer()), ErrorCode::kUnavailable, "never");
  expect_error(named("llama2").render(conversation("order"), nullptr, true), ErrorCode::kInvalidArgument,
               "refuses the conversation: Roles must alternate");
  expect_error(named("chatml").render(conversation("one"), golden().at("tools"), true), ErrorCode::kInvalidArgument,
               "has no place for tools");
  expect_error(named("chatml").render(conversation("call"), nullptr, true), ErrorCode::kInvalidArgument,
               "has no place for calls");
}

}  // namespace
}  // namespace tailor
