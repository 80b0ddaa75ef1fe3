#include "serve/tool_calls.h"

#include <gtest/gtest.h>

#include "serve/test_api.h"
#include "serve/test_tools.h"

namespace tailor {
namespace {

using test::JsonAnswer;
using test::model_with_tools;
using test::TestApi;

const Json& kTools = test::tools();

ToolFormat hermes() {
  return {"<tool_call>\n", "</tool_call>", "name", "arguments"};
}

/// All that is shown, in pieces of `size` bytes.
std::string read_in_pieces(ToolCallReader& reader, const std::string& text, std::size_t size) {
  std::string shown;
  for (std::size_t at = 0; at < text.size(); at += size) shown += reader.add(text.substr(at, size));
  return shown + reader.finish();
}

TEST(ToolCalls, AreFoundInAnswersHoweverTheyComeInPieces) {
  const std::string text =
      "Let me look <b>.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"}\\\"{\", \"days\": "
      "2}}\n</tool_call>\n"
      "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>";
  for (const std::size_t size : {std::size_t{1}, std::size_t{3}, std::size_t{7}, text.size()}) {
    ToolCallReader reader(hermes());
    EXPECT_EQ(read_in_pieces(reader, text, size), "Let me look <b>.\n") << size;
    ASSERT_EQ(reader.calls().size(), 2u) << size;
    EXPECT_EQ(reader.calls()[0].name, "weather");
    EXPECT_EQ(Json::parse(reader.calls()[0].arguments), (Json{{"city", "}\"{"}, {"days", 2}}));
    EXPECT_EQ(reader.calls()[1].name, "stop");
    EXPECT_NE(reader.calls()[0].id, reader.calls()[1].id);
  }
}

TEST(ToolCalls, OneAtATimeEndsTheAnswerWithTheFirst) {
  const std::string text =
      "Wait.\n<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>\nand\n"
      "<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n</tool_call>\nDone.";
  for (const std::size_t size : {std::size_t{1}, std::size_t{7}, text.size()}) {
    ToolCallReader reader(hermes(), false);
    EXPECT_FALSE(reader.at_end());
    EXPECT_EQ(read_in_pieces(reader, text, size), "Wait.\n") << size;
    EXPECT_TRUE(reader.at_end());
    ASSERT_EQ(reader.calls().size(), 1u);
    EXPECT_EQ(reader.calls()[0].name, "stop");
  }
}

TEST(ToolCalls, WhatIsNoneStaysText) {
  for (const std::string text : {"no call <tool_ca", "<tool_call>\n{\"name\": 7}", "<tool_call>\nhello", "a < b"}) {
    ToolCallReader reader(hermes());
    const std::string shown = read_in_pieces(reader, text, 2);
    EXPECT_TRUE(reader.calls().empty());
    EXPECT_EQ(shown.find("undefined"), std::string::npos);
    // Only blanks behind the opening may be lost.
    std::string a = shown, b = text;
    std::erase(a, '\n');
    std::erase(b, '\n');
    EXPECT_EQ(a, b);
  }
}

TEST(ToolCalls, WithoutAnOpeningACallIsTheAnswersBeginningAndNamesATool) {
  const std::string call = "{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}";
  const std::string person = "{\"name\": \"Anna\", \"age\": 31}";
  struct Case {
    std::string text, shown;
    std::size_t calls;
  };
  for (const Case& c :
       {Case{"\n " + call, "\n ", 1}, Case{call + "\n" + call, "", 2}, Case{"It is: " + call, "It is: " + call, 0},
        Case{person, person, 0}, Case{person + " and " + call, person + " and " + call, 0},
        Case{"for (;;) {\n  f();\n}", "for (;;) {\n  f();\n}", 0}}) {
    for (const std::size_t size : {std::size_t{1}, std::size_t{3}, c.text.size()}) {
      ToolCallReader reader({"", "", "name", "arguments"}, true, {"weather", "stop"});
      EXPECT_EQ(read_in_pieces(reader, c.text, size), c.shown) << c.text << " in pieces of " << size;
      EXPECT_EQ(reader.calls().size(), c.calls) << c.text << " in pieces of " << size;
    }
  }
  ToolCallReader reader({"", "", "name", "arguments"}, true, {"weather"});
  reader.add("Look: ");
  EXPECT_EQ(reader.add("{\"a\": "), "{\"a\": ") << "nothing of a text is held back";
}

TEST(ToolCalls, OneThatIsNestedTooDeepIsNone) {
  const auto deep = [](std::size_t depth) {
    return "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": " + std::string(depth, '[') +
           std::string(depth, ']') + "}}\n</tool_call>";
  };
  ToolCallReader right(hermes());
  read_in_pieces(right, deep(60), 7);
  EXPECT_EQ(right.calls().size(), 1u);
  ToolCallReader reader(hermes());
  const std::string text = deep(1 << 20);  // to write it again would take more stack than a thread has
  EXPECT_EQ(read_in_pieces(reader, text, text.size()).size(), text.size() - 1);
  EXPECT_TRUE(reader.calls().empty());
}

TEST(ToolCalls, TheFormatIsReadFromTheTemplate) {
  TestApi api;
  api.models().put(serve_base_model(model_with_tools().string(), "tools",
                                    {.cache_bytes = 64 << 20, .share = std::make_shared<ComputeShare>(1)})
                       .value());
  const auto format = api.models().find("tools")->text->tool_format();
  ASSERT_TRUE(format.has_value());
  EXPECT_EQ(format->open, "<tool_call>\n");
  EXPECT_EQ(format->close, "</tool_call>");
  EXPECT_EQ(format->name_key, "name");
  EXPECT_EQ(format->arguments_key, "arguments");
  EXPECT_FALSE(api.models().find("tiny")->text->tool_format().has_value());
}

TEST(ToolCalls, AForcedCallFollowsItsParameters) {
  TestApi api;
  api.models().put(serve_base_model(model_with_tools().string(), "tools",
                                    {.cache_bytes = 64 << 20, .share = std::make_shared<ComputeShare>(1)})
                       .value());
  const Json base{{"model", "tools"},
                  {"messages", {{{"role", "user"}, {"content", "Rain?"}}}},
                  {"tools", kTools},
                  {"max_tokens", 900}};
  Json forced = base;
  forced["tool_choice"] = {{"type", "function"}, {"function", {{"name", "weather"}}}};
  const JsonAnswer got = api.post("/v1/chat/completions", forced);
  ASSERT_EQ(got.status, 200) << got.json;
  const Json& choice = got.json["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls") << got.json;
  EXPECT_TRUE(choice["message"]["content"].is_null());
  ASSERT_EQ(choice["message"]["tool_calls"].size(), 1u);
  const Json& call = choice["message"]["tool_calls"][0];
  EXPECT_EQ(call["function"]["name"], "weather");
  const Json arguments = Json::parse(call["function"]["arguments"].get<std::string>());
  EXPECT_TRUE(arguments["city"].is_string());
  EXPECT_LE(arguments["days"].get<int>(), 7);
  // In a stream, and any of the tools.
  forced["tool_choice"] = "required";
  const auto events = api.stream("/v1/chat/completions", forced);
  Json streamed;
  std::string reason;
  for (const Json& event : events) {
    if (!event.is_object() || event["choices"].empty()) continue;
    const Json& delta = event["choices"][0]["delta"];
    if (delta.contains("tool_calls")) streamed = delta["tool_calls"];
    if (event["choices"][0]["finish_reason"].is_string()) reason = event["choices"][0]["finish_reason"];
  }
  ASSERT_EQ(streamed.size(), 1u);
  EXPECT_EQ(streamed[0]["index"], 0);
  EXPECT_EQ(reason, "tool_calls");
  // The answer of a tool goes back.
  Json back = base;
  back["messages"].push_back(choice["message"]);
  back["messages"].push_back({{"role", "tool"}, {"tool_call_id", call["id"]}, {"content", "sunny"}});
  back["max_tokens"] = 4;
  EXPECT_EQ(api.post("/v1/chat/completions", back).status, 200) << api.post("/v1/chat/completions", back).json;
}

TEST(ToolCalls, AForcedCallEndsThoughTheModelsEndIsIgnored) {
  TestApi api;
  api.models().put(serve_base_model(model_with_tools().string(), "tools",
                                    {.cache_bytes = 64 << 20, .share = std::make_shared<ComputeShare>(1)})
                       .value());
  const JsonAnswer got = api.post("/v1/chat/completions", {{"model", "tools"},
                                                           {"messages", {{{"role", "user"}, {"content", "Rain?"}}}},
                                                           {"tools", kTools},
                                                           {"tool_choice", "required"},
                                                           {"ignore_eos", true},
                                                           {"min_tokens", 110},
                                                           {"max_tokens", 900}});
  ASSERT_EQ(got.status, 200) << got.json;
  EXPECT_EQ(got.json["choices"][0]["finish_reason"], "tool_calls") << got.json;
  EXPECT_EQ(got.json["choices"][0]["message"]["tool_calls"].size(), 1u);
}

/// A model that calls twice, since its grammar lets it do nothing else.
TEST(ToolCalls, WithoutParallelCallsAnAnswerHasOneAtMost) {
  TestApi api;
  api.models().put(serve_base_model(model_with_tools().string(), "tools",
                                    {.cache_bytes = 64 << 20, .share = std::make_shared<ComputeShare>(1)})
                       .value());
  const std::string call = R"(<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>)";
  Json body{{"model", "tools"},
            {"messages", {{{"role", "user"}, {"content", "x"}}}},
            {"tools", kTools},
            {"n", 2},
            {"grammar", "root ::= \"" + call + "\\n" + call + "\""},
            {"temperature", 0},  // the same tokens each time
            {"max_tokens", 300}};
  const JsonAnswer two = api.post("/v1/chat/completions", body);
  ASSERT_EQ(two.status, 200) << two.json;
  ASSERT_EQ(two.json["choices"][0]["message"]["tool_calls"].size(), 2u) << two.json;
  body["parallel_tool_calls"] = false;
  const JsonAnswer one = api.post("/v1/chat/completions", body);
  ASSERT_EQ(one.status, 200) << one.json;
  ASSERT_EQ(one.json["choices"].size(), 2u);
  for (const Json& choice : one.json["choices"]) {
    EXPECT_EQ(choice["message"]["tool_calls"].size(), 1u);
    EXPECT_TRUE(choice["message"]["content"].is_null());
    EXPECT_EQ(choice["finish_reason"], "tool_calls");
  }
  EXPECT_LT(one.json["usage"]["completion_tokens"].get<int>(), two.json["usage"]["completion_tokens"].get<int>());
  int calls = 0, ends = 0;
  const auto events = api.stream("/v1/chat/completions", body);
  for (const Json& event : events) {
    if (!event.is_object() || event["choices"].empty()) continue;
    const Json& choice = event["choices"][0];
    calls += static_cast<int>(choice["delta"].value("tool_calls", Json::array()).size());
    ends += choice["finish_reason"] == "tool_calls" ? 1 : 0;
  }
  EXPECT_EQ(calls, 2) << "one of each answer";
  EXPECT_EQ(ends, 2);
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_TRUE(test::eventually([&] { return api.models().find("tools")->text->engine().stats().running == 0; }));
  body["parallel_tool_calls"] = "no";
  EXPECT_EQ(api.post("/v1/chat/completions", body).json["error"]["param"], "parallel_tool_calls");
}

TEST(ToolCalls, WhatNobodyActsOnIsNamed) {
  TestApi api;
  api.models().put(serve_base_model(model_with_tools().string(), "tools",
                                    {.cache_bytes = 64 << 20, .share = std::make_shared<ComputeShare>(1)})
                       .value());
  Json tools = kTools;
  tools[0]["odd"] = 1;
  tools[1]["function"]["strict"] = true;
  tools[1]["function"]["odd"] = 1;
  Json body{
      {"model", "tools"}, {"messages", {{{"role", "user"}, {"content", "x"}}}}, {"tools", tools}, {"max_tokens", 2}};
  const auto ignored = [&] { return *api.post("/v1/chat/completions", body).headers.find("X-Ignored-Params"); };
  EXPECT_EQ(ignored(), "tools[0].odd, tools[1].function.strict, tools[1].function.odd");
  body["tool_choice"] = {{"type", "function"}, {"function", {{"name", "stop"}, {"odd", 1}}}};
  EXPECT_EQ(ignored(), "tool_choice.function.odd, tools[0].odd, tools[1].function.odd") << "strict is done";
  const Json call{{"id", "1"}, {"type", "function"}, {"odd", 1}, {"function", {{"name", "stop"}, {"odd", 1}}}};
  body = {{"model", "tools"},
          {"messages",
           {{{"role", "user"}, {"content", "x"}},
            {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", {call, call}}},
            {{"role", "tool"}, {"content", "y"}, {"tool_call_id", "1"}}}},
          {"max_tokens", 2}};
  EXPECT_EQ(ignored(), "messages[1].tool_calls[0].odd, messages[1].tool_calls[0].function.odd");
}

TEST(ToolCalls, WhatIsRefused) {
  TestApi api;
  api.models().put(serve_base_model(model_with_tools().string(), "tools",
                                    {.cache_bytes = 64 << 20, .share = std::make_shared<ComputeShare>(1)})
                       .value());
  const auto param = [&](const char* model, Json more) {
    Json body{{"model", model}, {"messages", {{{"role", "user"}, {"content", "x"}}}}, {"max_tokens", 2}};
    body.update(more);
    const JsonAnswer got = api.post("/v1/chat/completions", body);
    EXPECT_EQ(got.status, 400) << got.json;
    return got.json["error"]["param"].get<std::string>();
  };
  EXPECT_EQ(param("tiny", {{"tools", kTools}}), "tools");
  EXPECT_EQ(param("tools", {{"tools", {{{"type", "function"}}}}}), "tools");
  EXPECT_EQ(param("tools", {{"tools", kTools}, {"tool_choice", "maybe"}}), "tool_choice");
  EXPECT_EQ(
      param("tools", {{"tools", kTools}, {"tool_choice", {{"type", "function"}, {"function", {{"name", "other"}}}}}}),
      "tool_choice");
  EXPECT_EQ(param("tools", {{"tool_choice", "required"}}), "tool_choice");
  EXPECT_EQ(
      param("tools", {{"tools", kTools}, {"tool_choice", "required"}, {"response_format", {{"type", "json_object"}}}}),
      "response_format");
  EXPECT_EQ(api.post("/v1/chat/completions", {{"model", "tiny"},
                                              {"messages", {{{"role", "user"}, {"content", "x"}}}},
                                              {"tools", kTools},
                                              {"tool_choice", "none"},
                                              {"max_tokens", 1}})
                .status,
            200);
}

}  // namespace
}  // namespace tailor
