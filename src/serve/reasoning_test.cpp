#include "serve/reasoning.h"

#include <gtest/gtest.h>

#include "serve/test_api.h"
#include "serve/test_template.h"

namespace tailor {
namespace {

using test::JsonAnswer;
using test::TestApi;

struct Read {
  std::string reasoning, content;
  bool operator==(const Read&) const = default;
};
void PrintTo(const Read& read, std::ostream* out) {
  *out << "[" << read.reasoning << "|" << read.content << "]";
}

Read read_in_pieces(const std::string& text, std::size_t size, bool begun = false) {
  ReasoningReader reader(begun);
  Read out;
  const auto take = [&](const ReasoningReader::Told& told) {
    out.reasoning += told.reasoning;
    out.content += told.content;
  };
  for (std::size_t at = 0; at < text.size(); at += size) take(reader.add(std::string_view(text).substr(at, size)));
  take(reader.finish());
  return out;
}

TEST(Reasoning, IsToldApartHoweverItComesInPieces) {
  for (const std::size_t size : {1, 2, 3, 5, 8, 1000}) {
    EXPECT_EQ(read_in_pieces("<think>\nIt is a < b,\n\nso </ yes.\n</think>\n\nYes.\n", size),
              (Read{"It is a < b,\n\nso </ yes.", "Yes.\n"}))
        << size;
    EXPECT_EQ(read_in_pieces("\n<think>a</think>b", size), (Read{"a", "b"})) << size;
    EXPECT_EQ(read_in_pieces("Hmm.\n</think>\n\nYes", size, true), (Read{"Hmm.", "Yes"})) << size;
    EXPECT_EQ(read_in_pieces("<think>\n\n</think>\n\nYes", size), (Read{"", "Yes"})) << "it did not think";
  }
}

TEST(Reasoning, WhatIsNoneStaysContent) {
  for (const std::size_t size : {1, 4, 1000}) {
    for (const std::string text :
         {"Yes.", " <thin", "<thinking> aloud", "  indented", "Yes <think>no</think>", "<", ""})
      EXPECT_EQ(read_in_pieces(text, size), (Read{"", text})) << size;
    EXPECT_EQ(read_in_pieces("<think>a</think><think>b</think>", size), (Read{"a", "<think>b</think>"})) << size;
  }
}

TEST(Reasoning, AnAnswerThatEndsWithinItHasNoContent) {
  for (const std::size_t size : {1, 4, 1000}) {
    EXPECT_EQ(read_in_pieces("<think>\nLet me see </th", size), (Read{"Let me see </th", ""})) << size;
    EXPECT_EQ(read_in_pieces("Let me see \n", size, true), (Read{"Let me see", ""})) << size;
  }
}

TEST(Reasoning, APromptMayBeginIt) {
  EXPECT_TRUE(opens_thoughts("<|im_start|>assistant\n<think>\n"));
  EXPECT_TRUE(opens_thoughts("<think>"));
  EXPECT_FALSE(opens_thoughts("<|im_start|>assistant\n<think>\n\n</think>\n\n"));
  EXPECT_FALSE(opens_thoughts("<|im_start|>assistant\n"));
  EXPECT_FALSE(opens_thoughts(""));
}

/// A model whose prompts begin the thoughts, as DeepSeek's distilled ones do: all that it writes is one.
std::filesystem::path model_that_thinks() {
  constexpr const char* kTemplate =
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content "
      "}}\n"
      "</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
      "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}";
  return test::tiny_llama_with_template("tiny-thinks", kTemplate);
}

struct ThinkingApi {
  TestApi api;
  ThinkingApi() {
    const ModelLoadOptions load{.cache_bytes = std::uint64_t{16} << 20, .share = std::make_shared<ComputeShare>(1)};
    api.models().put(serve_base_model(model_that_thinks().string(), "thinks", load).value());
  }
};

Json ask(const std::string& model) {
  return {{"model", model},
          {"messages", {{{"role", "user"}, {"content", "Hello"}}}},
          {"temperature", 0},
          {"max_tokens", 12},
          {"ignore_eos", true}};
}

TEST(Reasoning, AnswersNameItAsClientsExpectIt) {
  ThinkingApi t;
  const JsonAnswer whole = t.api.post("/v1/chat/completions", ask("thinks"));
  ASSERT_EQ(whole.status, 200) << whole.json;
  const Json& message = whole.json["choices"][0]["message"];
  EXPECT_EQ(message["content"], "");
  const std::string thoughts = message.at("reasoning_content");
  EXPECT_FALSE(thoughts.empty());
  EXPECT_EQ(message["reasoning"], thoughts);
  EXPECT_EQ(whole.json["usage"]["completion_tokens"], 12);

  std::string streamed;
  for (const Json& event : t.api.stream("/v1/chat/completions", ask("thinks"))) {
    if (!event.is_object()) continue;
    const Json& delta = event["choices"][0]["delta"];
    EXPECT_EQ(delta.value("content", ""), "") << event;
    streamed += delta.value("reasoning_content", "");
    EXPECT_EQ(delta.value("reasoning_content", ""), delta.value("reasoning", "")) << event;
  }
  EXPECT_EQ(streamed, thoughts);
}

TEST(Reasoning, IsLookedForWhereAModelThinks) {
  ThinkingApi t;
  const JsonAnswer plain = t.api.post("/v1/chat/completions", ask("tiny"));
  EXPECT_FALSE(plain.json["choices"][0]["message"].contains("reasoning_content")) << plain.json;
  Json held = ask("thinks");
  held["guided_choice"] = {"yes", "no"};
  held.erase("ignore_eos");
  const JsonAnswer format = t.api.post("/v1/chat/completions", held);
  const Json& message = format.json["choices"][0]["message"];
  EXPECT_TRUE(message["content"] == "yes" || message["content"] == "no") << format.json;
  EXPECT_FALSE(message.contains("reasoning_content")) << "a format begins with the answer's first token";
}

TEST(Reasoning, OfEarlierTurnsReachesTheTemplateByEitherName) {
  ThinkingApi t;
  for (const char* name : {"reasoning_content", "reasoning"}) {
    const auto shown = [&](const char* model) {
      return t.api.post("/v1/chat/completions", {{"model", model},
                                                 {"messages",
                                                  {{{"role", "user"}, {"content", "Hello"}},
                                                   {{"role", "assistant"}, {"content", "Hi"}, {name, "Be polite."}},
                                                   {{"role", "user"}, {"content", "Why?"}}}},
                                                 {"max_tokens", 1}});
    };
    const JsonAnswer read = shown("thinks"), not_read = shown("tiny");
    EXPECT_EQ(read.headers.find("X-Ignored-Params"), nullptr) << name;
    ASSERT_NE(not_read.headers.find("X-Ignored-Params"), nullptr) << name;
    EXPECT_EQ(*not_read.headers.find("X-Ignored-Params"), std::string("messages[1].") + name);
    const JsonAnswer text =
        t.api.post("/apply-template", {{"model", "thinks"},
                                       {"messages",
                                        {{{"role", "user"}, {"content", "Hello"}},
                                         {{"role", "assistant"}, {"content", "Hi"}, {name, "Be polite."}},
                                         {{"role", "user"}, {"content", "Why?"}}}}});
    EXPECT_NE(text.json.value("prompt", "").find("<think>\nBe polite.\n</think>\n\nHi"), std::string::npos)
        << text.json;
  }
}

}  // namespace
}  // namespace tailor
