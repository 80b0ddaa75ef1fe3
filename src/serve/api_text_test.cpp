// Chat completions and completions as clients see them. The shapes are those of ../shared's reference of OpenAI's API;
// the official clients are run against the server by tests/contract.

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <optional>

#include "infer/generator.h"
#include "serve/test_api.h"

namespace tailor {
namespace {

using test::Answer;
using test::JsonAnswer;
using test::TestApi;

const CancelToken kNever;

Json chat(const std::string& text, Json more = Json::object()) {
  Json out{
      {"model", "tiny"}, {"messages", {{{"role", "user"}, {"content", text}}}}, {"max_tokens", 8}, {"temperature", 0}};
  out.update(more);
  return out;
}

TEST(ApiText, ChatCompletion) {
  TestApi api;
  const JsonAnswer got = api.post("/v1/chat/completions", chat("Hello there"));
  ASSERT_EQ(got.status, 200) << got.json;
  EXPECT_EQ(got.json["object"], "chat.completion");
  EXPECT_EQ(got.json["model"], "tiny");
  EXPECT_EQ(got.json["id"].get<std::string>().substr(0, 9), "chatcmpl-");
  ASSERT_EQ(got.json["choices"].size(), 1u);
  const Json& choice = got.json["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_FALSE(choice["message"]["content"].get<std::string>().empty());
  EXPECT_TRUE(choice["message"]["refusal"].is_null());
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(got.json["usage"]["completion_tokens"], 8);
  EXPECT_EQ(got.json["usage"]["total_tokens"], got.json["usage"]["prompt_tokens"].get<int>() + 8);
  EXPECT_NE(got.headers.find("X-Request-Id"), nullptr);
  EXPECT_EQ(got.headers.find("X-Ignored-Params"), nullptr);
  // What people wrote as parts is the same text, and the second time it is read from the cache.
  Json parts = chat("");
  parts["messages"][0]["content"] = {{{"type", "text"}, {"text", "Hello "}}, {{"type", "text"}, {"text", "there"}}};
  const JsonAnswer again = api.post("/v1/chat/completions", parts);
  EXPECT_EQ(again.json["choices"][0]["message"], choice["message"]);
  EXPECT_GT(again.json["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>(), 0);
}

TEST(ApiText, StreamsTheSameInPieces) {
  TestApi api;
  const JsonAnswer whole = api.post("/v1/chat/completions", chat("Hello", {{"n", 2}, {"temperature", 1}, {"seed", 5}}));
  const auto events = api.stream(
      "/v1/chat/completions",
      chat("Hello", {{"n", 2}, {"temperature", 1}, {"seed", 5}, {"stream_options", {{"include_usage", true}}}}));
  ASSERT_GE(events.size(), 6u);
  EXPECT_EQ(events.back(), "[DONE]");
  std::string text[2];
  int ends = 0, roles = 0;
  for (std::size_t i = 0; i + 2 < events.size(); ++i) {
    EXPECT_EQ(events[i]["object"], "chat.completion.chunk");
    EXPECT_EQ(events[i]["id"], events[0]["id"]);
    const Json& choice = events[i]["choices"][0];
    const auto index = choice["index"].get<std::size_t>();
    roles += choice["delta"].value("role", "") == "assistant" ? 1 : 0;
    text[index] += choice["delta"].value("content", "");
    ends += choice["finish_reason"].is_null() ? 0 : 1;
  }
  EXPECT_EQ(roles, 2);
  EXPECT_EQ(ends, 2);
  const Json& last = events[events.size() - 2];
  EXPECT_TRUE(last["choices"].empty());
  EXPECT_EQ(last["usage"]["completion_tokens"], 16);
  for (std::size_t i = 0; i < 2; ++i) EXPECT_EQ(whole.json["choices"][i]["message"]["content"], text[i]);
  EXPECT_NE(text[0], text[1]);
}

TEST(ApiText, CompletionEchoesItsPromptWithLogprobs) {
  TestApi api;
  const std::string prompt = "The capital of France is Paris";
  const JsonAnswer got = api.post(
      "/v1/completions",
      {{"model", "tiny"}, {"prompt", prompt}, {"max_tokens", 2}, {"echo", true}, {"logprobs", 1}, {"temperature", 0}});
  ASSERT_EQ(got.status, 200) << got.json;
  EXPECT_EQ(got.json["object"], "text_completion");
  const Json& choice = got.json["choices"][0];
  EXPECT_EQ(choice["text"].get<std::string>().substr(0, prompt.size()), prompt);
  const Json& logprobs = choice["logprobs"];
  const TokenList tokens = api.engine().tokenizer().encode(prompt, true, true);
  ASSERT_EQ(logprobs["tokens"].size(), tokens.size() + 2);
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
  Generator generator = Generator::load(testing::tiny_llama(), {.threads = 1}).value();  // keys and values alike
  const std::vector<double> losses =
      generator.losses(tokens, std::vector<std::uint8_t>(tokens.size(), 1), kNever).value();
  std::string joined;
  for (std::size_t i = 0; i < logprobs["tokens"].size(); ++i) {
    EXPECT_EQ(logprobs["text_offset"][i], joined.size());
    joined += logprobs["tokens"][i].get<std::string>();
    if (i == 0) continue;
    const double logprob = logprobs["token_logprobs"][i].get<double>();
    if (i < tokens.size()) {
      EXPECT_NEAR(-logprob, losses[i - 1], 1e-3) << i;
    }
    EXPECT_TRUE(logprobs["top_logprobs"][i].contains(logprobs["tokens"][i].get<std::string>()));
  }
  EXPECT_EQ(joined, choice["text"]);
  // Scores alone: no answer.
  const JsonAnswer scored =
      api.post("/v1/completions", {{"prompt", tokens}, {"max_tokens", 0}, {"echo", true}, {"logprobs", 0}});
  ASSERT_EQ(scored.status, 200) << scored.json;
  EXPECT_EQ(scored.json["choices"][0]["logprobs"]["tokens"].size(), tokens.size());
  EXPECT_EQ(scored.json["usage"]["completion_tokens"], 0);
}

TEST(ApiText, ManyPromptsAndChoices) {
  TestApi api;
  const JsonAnswer got =
      api.post("/v1/completions", {{"prompt", {"one", "two", "three"}}, {"n", 2}, {"max_tokens", 4}});
  ASSERT_EQ(got.status, 200) << got.json;
  ASSERT_EQ(got.json["choices"].size(), 6u);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(got.json["choices"][i]["index"], i);
  EXPECT_EQ(got.json["usage"]["completion_tokens"], 24);
  const JsonAnswer lists = api.post("/v1/completions", {{"prompt", {{100, 101}, {102, 103, 104}}}, {"max_tokens", 1}});
  EXPECT_EQ(lists.json["usage"]["prompt_tokens"], 5);
}

TEST(ApiText, LogprobsBiasAndStops) {
  TestApi api;
  const JsonAnswer got =
      api.post("/v1/chat/completions", chat("Hi", {{"logprobs", true}, {"top_logprobs", 3}, {"max_tokens", 4}}));
  const Json& content = got.json["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 4u);
  for (const Json& token : content) {
    ASSERT_EQ(token["top_logprobs"].size(), 3u);
    EXPECT_EQ(token["top_logprobs"][0]["token"], token["token"]);  // greedy
    EXPECT_EQ(token["bytes"].size(), token["token"].get<std::string>().size());
    EXPECT_LE(token["logprob"].get<double>(), 0);
  }
  const std::string text = got.json["choices"][0]["message"]["content"];
  const std::string first = content[0]["token"];
  const TokenList banned = api.engine().tokenizer().encode(first, false);
  const JsonAnswer other =
      api.post("/v1/chat/completions", chat("Hi", {{"logit_bias", {{std::to_string(banned[0]), -100}}}}));
  EXPECT_NE(other.json["choices"][0]["message"]["content"].get<std::string>().substr(0, first.size()), first);
  const std::string stop = text.substr(first.size(), 2);
  const JsonAnswer cut = api.post("/v1/chat/completions", chat("Hi", {{"stop", stop}}));
  EXPECT_EQ(cut.json["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(cut.json["choices"][0]["stop_reason"], stop);
  EXPECT_EQ(cut.json["choices"][0]["message"]["content"], text.substr(0, text.find(stop)));
}

TEST(ApiText, WhatIsWrongIsNamed) {
  TestApi api;
  struct Case {
    Json body;
    int status;
    const char* param;
    const char* text;
  };
  const auto without_messages = [](Json messages) { return Json{{"messages", std::move(messages)}}; };
  const std::vector<Case> cases{
      {chat("x", {{"model", "nonesuch"}}), 404, "model", "there is tiny"},
      {without_messages(nullptr), 400, "messages", "at least one"},
      {without_messages(Json::array()), 400, "messages", "at least one"},
      {without_messages({{{"role", "wizard"}, {"content", "x"}}}), 400, "messages[0].role", "wizard"},
      {without_messages({{{"content", "x"}}}), 400, "messages[0].role", "missing"},
      {without_messages({{{"role", "user"}}}), 400, "messages[0].content", "missing"},
      {without_messages({{{"role", "user"}, {"content", 7}}}), 400, "messages[0].content", "string"},
      {without_messages({{{"role", "user"}, {"content", {{{"type", "image_url"}}}}}}), 400,
       "messages[0].content[0].type", "image_url"},
      {without_messages({7}), 400, "messages[0]", "an object"},
      {chat("x", {{"temperature", 3}}), 400, "temperature", "from 0 to 2"},
      {chat("x", {{"temperature", "hot"}}), 400, "temperature", "a number"},
      {chat("x", {{"max_tokens", 0}}), 400, "max_tokens", "at least 1"},
      {chat("x", {{"max_tokens", 1.5}}), 400, "max_tokens", "an integer"},
      {chat("x", {{"n", 99}}), 400, "n", "from 1 to 16"},
      {chat("x", {{"stop", {1}}}), 400, "stop", "strings"},
      {chat("x", {{"stop", std::vector<std::string>(17, "a")}}), 400, "stop", "at most 16"},
      {chat("x", {{"stop", std::string(300, 'a')}}), 400, "stop", "256"},
      {chat("x", {{"logit_bias", {{"-1", 1}}}}), 400, "logit_bias", "token ids"},
      {chat("x", {{"logit_bias", {{"5", 1000}}}}), 400, "logit_bias", "-100 to 100"},
      {chat("x", {{"top_logprobs", 2}}), 400, "top_logprobs", "logprobs"},
      {chat("x", {{"stream_options", {{"include_usage", true}}}}), 400, "stream_options", "stream"},
      {chat("x", {{"seed", 1e30}}), 400, "seed", "an integer"},
      {chat(std::string(60'000, 'x')), 400, "messages", "the model reads 2048"},
  };
  for (const Case& c : cases) {
    const JsonAnswer got = api.post("/v1/chat/completions", c.body);
    EXPECT_EQ(got.status, c.status) << c.text;
    ASSERT_TRUE(got.json.contains("error")) << got.json;
    EXPECT_EQ(got.json["error"]["param"], c.param) << got.json;
    EXPECT_NE(got.json["error"]["message"].get<std::string>().find(c.text), std::string::npos) << got.json;
    EXPECT_EQ(got.json["error"]["type"], "invalid_request_error");
  }
  const std::vector<Case> completions{
      {Json::object(), 400, "prompt", "missing"},
      {{{"prompt", "x"}, {"max_tokens", 0}}, 400, "max_tokens", "echo"},
      {{{"prompt", "x"}, {"suffix", "y"}}, 400, "suffix", "not supported"},
      {{{"prompt", "x"}, {"best_of", 3}}, 400, "best_of", "'n'"},
      {{{"prompt", {1, 1 << 30}}}, 400, "prompt", "token ids"},
      {{{"prompt", {{"a", 1}}}}, 400, "prompt", "expected"},
      {{{"prompt", ""}}, 400, "prompt", "empty"},
  };
  for (const Case& c : completions) {
    const JsonAnswer got = api.post("/v1/completions", c.body);
    EXPECT_EQ(got.status, c.status) << got.json;
    EXPECT_EQ(got.json["error"]["param"], c.param) << got.json;
    EXPECT_NE(got.json["error"]["message"].get<std::string>().find(c.text), std::string::npos) << got.json;
  }
  EXPECT_EQ(api.post("/v1/chat/completions", chat(std::string(60'000, 'x'))).json["error"]["code"],
            "context_length_exceeded");
}

TEST(ApiText, FormatsAreEnforcedOrRefused) {
  TestApi api;
  const Json schema{{"type", "object"},
                    {"properties",
                     {{"city", {{"type", "string"}, {"maxLength", 12}}},
                      {"n", {{"type", "integer"}, {"minimum", 0}, {"maximum", 99}}}}},
                    {"required", {"city", "n"}},
                    {"additionalProperties", false}};
  const auto content = [&](Json more, int tokens = 200) {
    more["max_tokens"] = tokens;
    more["temperature"] = 1;
    const JsonAnswer got = api.post("/v1/chat/completions", chat("x", more));
    EXPECT_EQ(got.status, 200) << got.json;
    EXPECT_EQ(got.json["choices"][0]["finish_reason"], "stop") << got.json;
    return got.json["choices"][0]["message"]["content"].get<std::string>();
  };
  const std::vector<Json> ways{
      {{"response_format",
        {{"type", "json_schema"}, {"json_schema", {{"name", "x"}, {"strict", true}, {"schema", schema}}}}}},
      {{"response_format", {{"type", "json_schema"}, {"schema", schema}}}},
      {{"response_format", {{"type", "json_object"}, {"schema", schema}}}},
      {{"structured_outputs", {{"json", schema}}}},
      {{"guided_json", schema}},
      {{"json_schema", schema}},
  };
  for (const Json& way : ways) {
    const Json answer = Json::parse(content(way), nullptr, false);
    ASSERT_TRUE(answer.is_object()) << way;
    EXPECT_EQ(answer.size(), 2u);
    EXPECT_TRUE(answer["city"].is_string());
    EXPECT_TRUE(answer["n"].is_number_integer());
    EXPECT_LE(answer["n"].get<int>(), 99);
  }
  const std::string choice = content({{"guided_choice", {"yes", "no", "no idea"}}});
  EXPECT_TRUE(choice == "yes" || choice == "no" || choice == "no idea") << choice;
  const std::string date = content({{"structured_outputs", {{"regex", "[0-9]{4}-[0-9]{2}"}}}});
  EXPECT_EQ(date.size(), 7u);
  EXPECT_EQ(date[4], '-');
  EXPECT_EQ(content({{"grammar", "root ::= \"a\" \"b\""}}), "ab");
  const JsonAnswer completed =
      api.post("/v1/completions", {{"prompt", "x"}, {"max_tokens", 20}, {"guided_choice", {"one"}}});
  EXPECT_EQ(completed.json["choices"][0]["text"], "one");

  const auto refused = [&](Json more, const char* param) {
    const JsonAnswer got = api.post("/v1/chat/completions", chat("x", more));
    EXPECT_EQ(got.status, 400) << got.json;
    EXPECT_EQ(got.json["error"]["param"], param) << got.json;
  };
  refused({{"response_format", {{"type", "xml"}}}}, "response_format.type");
  refused({{"response_format", {{"type", "json_schema"}}}}, "response_format.json_schema");
  refused({{"response_format", {{"type", "json_schema"}, {"json_schema", {{"name", "x"}}}}}},
          "response_format.json_schema.schema");
  refused(
      {{"response_format", {{"type", "json_schema"}, {"json_schema", {{"schema", {{"not", {{"type", "string"}}}}}}}}}},
      "response_format.json_schema.schema");
  refused({{"guided_regex", "(a"}}, "guided_regex");
  refused({{"guided_choice", {"a"}}, {"guided_regex", "a"}}, "response_format");
  refused({{"structured_outputs", {{"structural_tag", "x"}}}}, "structured_outputs.structural_tag");
}

TEST(ApiText, AFormatThatIsCompleteEndsWhateverMinTokensSays) {
  TestApi api;
  for (const Json& more : {Json{{"min_tokens", 8}}, Json{{"min_tokens", 8}, {"ignore_eos", true}}}) {
    Json body = chat("x", {{"guided_choice", {"yes", "no"}}, {"max_tokens", 20}});
    body.update(more);
    const JsonAnswer got = api.post("/v1/chat/completions", body);
    ASSERT_EQ(got.status, 200) << got.json;
    const Json& choice = got.json["choices"][0];
    EXPECT_EQ(choice["finish_reason"], "stop");
    const auto text = choice["message"]["content"].get<std::string>();
    EXPECT_TRUE(text == "yes" || text == "no") << text;
  }
}

TEST(ApiText, BodiesThatAreNoRequests) {
  TestApi api;
  const auto raw = [&](const std::string& body) { return api.post("/v1/chat/completions", Json(body)); };
  EXPECT_EQ(raw("{").status, 400);
  EXPECT_EQ(raw("[]").status, 400);
  EXPECT_EQ(raw("{\"a\": NaN}").status, 400);
  EXPECT_EQ(raw("{\"a\": \"\xff\"}").status, 400);
  EXPECT_EQ(raw("{\"n\": 1, \"n\": 2}").json["error"]["param"], "n");
  EXPECT_EQ(raw(std::string(100, '[') + std::string(100, ']')).status, 400);
  EXPECT_EQ(raw("{\"n\": 1e999}").status, 400);
  auto client = api.client();
  EXPECT_EQ(client.ask("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}").status,
            415);
  EXPECT_EQ(client.ask("POST /tokenize HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 400) << "no body at all";
  EXPECT_EQ(api.get("/v1/chat/completions").status, 405);
  for (const std::string method : {"TRACE", "QUERY"}) {
    const auto refused = api.client().ask(method + " /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_EQ(refused.status, 405);
    EXPECT_EQ(*refused.headers.find("Allow"), "POST");
  }
  EXPECT_NE(api.get("/v1/chat/completions").headers.find("X-Request-Id"), nullptr);  // refusals too: clients show it
  EXPECT_EQ(*api.get("/v1/chat/completions").headers.find("Allow"), "POST");
  EXPECT_EQ(api.get("/v2/nothing").status, 404);
  EXPECT_EQ(api.client()
                .ask("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                     "application/json\r\nContent-Length: 99999999\r\n\r\n")
                .status,
            413);
}

TEST(ApiText, ParametersThatNobodyReadAreNamed) {
  TestApi api;
  const JsonAnswer got = api.post("/v1/chat/completions", chat("x", {{"mirostat", 2}, {"user", "me"}}));
  EXPECT_EQ(got.status, 200);
  EXPECT_EQ(*got.headers.find("X-Ignored-Params"), "mirostat, user");
  const JsonAnswer odd = api.post("/v1/chat/completions", chat("x", {{"a\r\nSet-Cookie: b", 1}, {"é,", 2}, {"", 3}}));
  EXPECT_EQ(odd.status, 200);
  EXPECT_EQ(*odd.headers.find("X-Ignored-Params"), "a%0D%0ASet-Cookie:%20b, %C3%A9%2C");
  EXPECT_EQ(*api.post("/v1/chat/completions", chat("x"), "X-Request-Id: my-1\r\n").headers.find("X-Request-Id"),
            "my-1");
  EXPECT_EQ(
      api.post("/v1/chat/completions", chat("x"), "X-Request-Id: a b\r\n").headers.find("X-Request-Id")->substr(0, 4),
      "req-");
}

std::string ignored(const JsonAnswer& answer) {
  EXPECT_EQ(answer.status, 200) << answer.json;
  const std::string* names = answer.headers.find("X-Ignored-Params");
  return names == nullptr ? "" : *names;
}

TEST(ApiText, ParametersWithinOthersAreNamedByTheirPaths) {
  TestApi api;
  const std::string path = "/v1/chat/completions";
  Json body = chat("x", {{"stream_options", {{"include_usage", true}, {"include_obfuscation", false}, {"odd", 1}}},
                         {"stream", true},
                         {"response_format",
                          {{"type", "json_schema"},
                           {"odd", 1},
                           {"json_schema",
                            {{"name", "x"},
                             {"strict", true},
                             {"description", "words"},
                             {"odd", 1},
                             {"schema", {{"type", "boolean"}}}}}}}});
  EXPECT_EQ(ignored(api.post(path, body)),
            "stream_options.include_obfuscation, stream_options.odd, response_format.odd, "
            "response_format.json_schema.description, response_format.json_schema.odd");
  Json talk = chat("x");
  talk["messages"] = {
      {{"role", "user"}, {"content", {{{"type", "text"}, {"text", "x"}, {"cache_control", {{"type", "none"}}}}}}},
      {{"role", "assistant"},
       {"content", "y"},
       {"refusal", nullptr},
       {"audio", nullptr},
       {"reasoning_content", "z"},
       {"function_call", {{"name", "f"}}}},
      {{"role", "user"}, {"content", "z"}, {"weight", 0}},
      {{"role", "user"}, {"content", "z"}, {"weight", 1}}};
  EXPECT_EQ(ignored(api.post(path, talk)),
            "messages[0].content[0].cache_control, messages[1].function_call, messages[2].weight, "
            "messages[1].reasoning_content");
  EXPECT_EQ(ignored(api.post("/v1/rerank", {{"query", "x"}, {"documents", {{{"text", "y"}, {"title", "z"}}}}})),
            "documents[0].title");
  EXPECT_EQ(ignored(api.post("/tokenize", {{"messages", {{{"role", "user"}, {"content", "x"}, {"odd", 1}}}}})),
            "messages[0].odd");
  EXPECT_EQ(ignored(api.post(path + "?api-version=1&a+b=2&api-version=3", chat("x", {{"odd", 1}}))),
            "?api-version, ?a%20b, odd");
  EXPECT_EQ(ignored(api.get("/v1/models?limit=3")), "?limit");
  EXPECT_EQ(ignored(api.get("/tokenizer_info?model=tiny&odd")), "?odd");
}

TEST(ApiText, ManyParametersThatNobodyReadAreNamedWithinBounds) {
  TestApi api;
  Json body = chat("x");
  for (int i = 0; i < 5000; ++i) body["odd" + std::to_string(i)] = i;
  const std::string many = ignored(api.post("/v1/chat/completions", body));
  EXPECT_EQ(many.rfind("odd0, odd1, ", 0), 0u) << many;
  EXPECT_EQ(many.substr(many.size() - 5), ", ...");
  EXPECT_LT(many.size(), 1100u);
  const std::string one = ignored(api.post("/v1/chat/completions", chat("x", {{std::string(5000, 'a'), 1}, {"b", 1}})));
  EXPECT_EQ(one, std::string(120, 'a') + "..., b");
  EXPECT_LT(ignored(api.get("/v1/models?" + std::string(3000, '&') + "a&b&c=" + std::string(3000, 'd'))).size(), 20u);
}

TEST(ApiText, PlacesOfTokensCountCharactersFromTheTextsBeginning) {
  TestApi api;
  const std::string prompt = "Zoë ☕ saw 😀 in Köln";
  const Json ask{{"prompt", prompt}, {"max_tokens", 12}, {"logprobs", 0}, {"temperature", 0}, {"ignore_eos", true}};
  const Tokenizer& tokenizer = api.engine().tokenizer();
  for (const bool echo : {false, true}) {
    Json body = ask;
    body["echo"] = echo;
    const Json choice = api.post("/v1/completions", body).json["choices"][0];
    const Json& whole = choice["logprobs"];
    Json streamed = Json::array();
    std::size_t chunks = 0;
    for (const Json& event : api.stream("/v1/completions", body)) {
      if (!event.is_object() || event["choices"].empty() || event["choices"][0]["logprobs"].is_null()) continue;
      for (const Json& place : event["choices"][0]["logprobs"]["text_offset"]) streamed.push_back(place);
      ++chunks;
    }
    EXPECT_GT(chunks, 3u);
    EXPECT_EQ(streamed, whole["text_offset"]) << "a stream tells other places";
    if (!echo) {
      EXPECT_EQ(whole["text_offset"][0], 0);
      continue;
    }
    std::size_t characters = 0;
    const TokenList tokens = tokenizer.encode(prompt, true, true);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const std::string bytes = tokenizer.decode({&tokens[i], 1}, true);
      const bool within = (static_cast<unsigned char>(bytes[0]) & 0xC0) == 0x80;
      EXPECT_EQ(whole["text_offset"][i], within ? characters - 1 : characters) << i;
      for (const char c : bytes) characters += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
    }
    EXPECT_EQ(characters, 19u);
    EXPECT_EQ(whole["text_offset"][tokens.size()], 19) << "where the answer begins";
  }
}

TEST(ApiText, TheTokenThatEndedAnAnswerIsTold) {
  TestApi api;
  const Json ask{{"prompt", "Where is"}, {"max_tokens", 6}, {"temperature", 0}, {"logit_bias", {{"400", 100}}}};
  Json body = ask;
  body["stop_token_ids"] = {399, 400};
  const JsonAnswer got = api.post("/v1/completions", body);
  ASSERT_EQ(got.status, 200) << got.json;
  EXPECT_EQ(got.json["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(got.json["choices"][0].value("stop_reason", Json()), 400);
  const auto events = api.stream("/v1/completions", body);
  EXPECT_EQ(events[events.size() - 2]["choices"][0].value("stop_reason", Json()), 400);
  body["ignore_eos"] = true;  // of the model alone
  EXPECT_EQ(api.post("/v1/completions", body).json["choices"][0].value("stop_reason", Json()), 400);
  const JsonAnswer whole = api.post("/v1/completions", ask);
  EXPECT_EQ(whole.json["choices"][0]["finish_reason"], "length");
  EXPECT_FALSE(whole.json["choices"][0].contains("stop_reason"));
}

TEST(ApiText, AClientThatGoesEndsItsAnswerWithinOneStep) {
  const auto share = std::make_shared<ComputeShare>(2);
  TestApi api({}, {.share = share});
  const HttpMetrics& http = api.server().metrics();
  for (const bool streamed : {true, false}) {
    SCOPED_TRACE(streamed ? "it read a stream" : "it waited for the whole");
    const auto answered = [&] { return api.engine().stats().answer_tokens; };
    const auto begin = answered();
    auto client = api.client();
    client.send(
        TestApi::post_text("/v1/chat/completions",
                           dump_json(chat("x", {{"stream", streamed}, {"max_tokens", 1900}, {"ignore_eos", true}}))));
    ASSERT_TRUE(test::eventually([&] { return answered() > begin; }));
    std::optional<ComputeShare::Turn> others(std::in_place, *share);  // no step is computed while it lives
    const auto gone = http.disconnects.load();
    client.abort();
    ASSERT_TRUE(test::eventually([&] { return http.disconnects > gone; }));
    const auto before = answered();
    EXPECT_LT(before, begin + 1800) << "the answer went on";
    others.reset();
    EXPECT_TRUE(test::eventually([&] { return api.engine().stats().running == 0; }));
    EXPECT_LE(answered(), before + 1) << "the step that had begun, and no other";
  }
}

TEST(ApiText, AStreamThatWaitsForItsPromptIsKeptAlive) {
  const auto share = std::make_shared<ComputeShare>(2);
  TestApi api({}, {.share = share});
  api.api().services().limits.stream_keep_alive = std::chrono::milliseconds(20);
  const auto ask = [&](const Json& more) {
    auto client = api.client();
    Json body = chat("x", {{"max_tokens", 2}});
    body.update(more);
    client.send(TestApi::post_text("/v1/chat/completions", dump_json(body)));
    return client;
  };
  std::optional<ComputeShare::Turn> others(std::in_place, *share);  // nothing is computed while it lives
  auto stream = ask({{"stream", true}}), whole = ask(Json::object());
  ASSERT_TRUE(stream.read_through(": keep-alive\n\n").has_value());
  others.reset();
  ASSERT_TRUE(stream.read_through("data: [DONE]\n\n").has_value());
  EXPECT_EQ(whole.read_answer().status, 200);
}

TEST(ApiText, TokensThatArePartsOfACharacterHaveNamesOfTheirOwn) {
  TestApi api;
  const std::string face = "\xf0\x9f\x98\x80";
  const JsonAnswer got =
      api.post("/v1/completions", {{"prompt", face}, {"echo", true}, {"logprobs", 2}, {"max_tokens", 0}});
  ASSERT_EQ(got.status, 200) << got.json;
  const Json& told = got.json["choices"][0]["logprobs"];
  std::string spelt;
  for (const Json& token : told["tokens"]) {
    const std::string name = token;
    if (name.starts_with("bytes:")) spelt += name.substr(6);
  }
  EXPECT_EQ(spelt, R"(\xf0\x9f\x98\x80)") << told["tokens"];
  EXPECT_EQ(dump_json(got.json).find("\xef\xbf\xbd"), std::string::npos) << "no replacement characters";
}

TEST(ApiText, EveryEventCountsTokensWhereAsked) {
  TestApi api;
  for (const char* const path : {"/v1/chat/completions", "/v1/completions"}) {
    Json body =
        chat("x", {{"max_tokens", 3}, {"ignore_eos", true}, {"stream_options", {{"continuous_usage_stats", true}}}});
    if (std::string_view(path) == "/v1/completions") {
      body.erase("messages");
      body.update({{"prompt", "x"}, {"echo", true}});
    }
    const auto events = api.stream(path, body);
    ASSERT_GE(events.size(), 4U);
    for (const Json& event : events) {
      EXPECT_TRUE(event == "[DONE]" || event.contains("usage")) << event;
    }
    EXPECT_EQ(events[events.size() - 2]["usage"]["completion_tokens"], 3);
  }
}

TEST(ApiText, ReadyUnlessAStepOrABatchHasStopped) {
  const auto share = std::make_shared<ComputeShare>(2);
  TestApi api({}, {.share = share});
  std::atomic<int> passed = 0;  // seconds beyond the machine's clock
  api.api().services().clock = [&] { return std::chrono::steady_clock::now() + std::chrono::seconds(passed); };
  const auto idle = [&] { return !api.engine().stats().computing_since.has_value(); };
  passed = 3600;
  EXPECT_EQ(api.get("/readyz").status, 200) << "it had nothing to do";
  EXPECT_EQ(api.post("/v1/completions", {{"prompt", "x"}, {"max_tokens", 1}}).status, 200);
  EXPECT_TRUE(test::eventually(idle));
  EXPECT_EQ(api.get("/readyz").status, 200) << "nor has it any more";

  std::optional<ComputeShare::Turn> others(std::in_place, *share);  // nothing is computed while it lives
  auto text = api.client(), vectors = api.client();
  text.send(TestApi::post_text("/v1/completions", dump_json({{"prompt", "x"}, {"max_tokens", 1}})));
  ASSERT_TRUE(test::eventually([&] { return !idle(); }));
  passed = 0;
  EXPECT_EQ(api.get("/readyz").status, 200);
  passed = 61;
  const JsonAnswer stopped = api.get("/readyz");
  EXPECT_EQ(stopped.status, 503);
  EXPECT_EQ(stopped.json["error"]["message"], "an engine has made no step for a minute");
  EXPECT_EQ(api.get("/health").status, 503);
  EXPECT_EQ(api.get("/livez").status, 200);
  others.reset();
  EXPECT_EQ(text.read_answer().status, 200);
  EXPECT_TRUE(test::eventually(idle));
  EXPECT_EQ(api.get("/readyz").status, 200);

  passed = 30;
  others.emplace(*share);
  vectors.send(TestApi::post_text("/v1/embeddings", dump_json({{"input", "one"}})));
  ASSERT_TRUE(test::eventually([&] { return api.models().find("tiny")->batcher_load().due.has_value(); }));
  EXPECT_EQ(api.get("/readyz").status, 200) << "a batch has a minute, and more for its texts";
  passed = 63;
  EXPECT_EQ(api.get("/readyz").json["error"]["message"], "a batch of texts has not ended in its time");
  others.reset();
  EXPECT_EQ(vectors.read_answer().status, 200);
  EXPECT_EQ(api.get("/readyz").status, 200);
}

TEST(ApiText, DrainingRefusesNewWorkAndEndsWhatRuns) {
  TestApi api;
  EXPECT_EQ(api.get("/readyz").status, 200);
  auto running = api.client();
  running.send(TestApi::post_text(
      "/v1/completions", dump_json({{"prompt", "x"}, {"stream", true}, {"max_tokens", 300}, {"ignore_eos", true}})));
  ASSERT_TRUE(running.read_through("\"text\":").has_value());
  auto kept = api.client();
  EXPECT_EQ(kept.get("/livez").status, 200);
  api.api().drain();
  api.server().drain();
  const JsonAnswer state = api.get("/readyz");
  EXPECT_EQ(state.status, 503);
  EXPECT_EQ(state.json["error"]["message"], "the server is draining");
  for (const char* path : {"/livez", "/version", "/ping"}) EXPECT_EQ(api.get(path).status, 200) << path;
  EXPECT_EQ(api.get("/health").status, 503);
  const std::string ask = TestApi::post_text("/v1/completions", dump_json({{"prompt", "x"}}));
  auto fresh = api.client();
  for (const Answer& refused :
       {fresh.ask(ask), kept.ask(ask), api.client().ask("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")}) {
    EXPECT_EQ(refused.status, 503);
    ASSERT_NE(refused.headers.find("Retry-After"), nullptr);
    EXPECT_EQ(*refused.headers.find("Connection"), "close");
    EXPECT_EQ(Json::parse(refused.body)["error"]["code"], "shutting_down");
  }
  EXPECT_TRUE(api.server().wait_answered(std::chrono::seconds(20)));
  api.server().stop_accepting();
  const std::string rest = running.read_to_end();
  EXPECT_NE(rest.find("\"finish_reason\":\"length\""), std::string::npos);
  EXPECT_NE(rest.find("data: [DONE]"), std::string::npos);
}

TEST(ApiText, AFullQueueSaysWhenToComeAgain) {
  ModelLoadOptions load;
  load.queue.requests = 1;
  TestApi api({}, load);
  std::vector<test::TestClient> clients;
  // More than the lanes take and one waits.
  int refused = 0;
  for (int i = 0; i < 200 && refused == 0; ++i) {
    clients.push_back(api.client());
    clients.back().send(TestApi::post_text(
        "/v1/completions", dump_json({{"prompt", {"a", "b", "c"}}, {"max_tokens", 1900}, {"ignore_eos", true}})));
    const auto answer = api.post("/v1/completions", {{"prompt", {"x", "y"}}, {"max_tokens", 1}});
    if (answer.status != 503) continue;
    ++refused;
    EXPECT_EQ(answer.json["error"]["code"], "server_overloaded");
    EXPECT_NE(answer.headers.find("Retry-After"), nullptr);
  }
  EXPECT_EQ(refused, 1);
}

}  // namespace
}  // namespace tailor
