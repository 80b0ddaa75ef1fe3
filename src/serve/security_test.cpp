// Rules of docs/SECURITY_CHECKLIST.md that no other test holds: hosts and origins, the limits of a request, and what
// answers and metrics never tell.

#include <gtest/gtest.h>

#include <set>

#include "core/files.h"
#include "serve/fine_tuning.h"
#include "serve/key_door.h"
#include "serve/metric_parser.h"
#include "serve/test_api.h"

namespace tailor {
namespace {

using test::Answer;
using test::JsonAnswer;
using test::TestApi;

constexpr std::size_t kDeep = 1 << 20;  // brackets: deep enough for any stack of a thread

Json chat(Json more = Json::object()) {
  Json out{
      {"model", "tiny"}, {"messages", {{{"role", "user"}, {"content", "x"}}}}, {"max_tokens", 4}, {"temperature", 0}};
  out.update(more);
  return out;
}

std::string nested(std::size_t depth) {
  return std::string(depth, '[') + std::string(depth, ']');
}

TEST(Security, HostsOfOthersAreRefused) {
  TestApi api({.hosts = {"localhost", "127.0.0.1", "::1", ""}});
  const auto status = [&](const std::string& host, const std::string& path = "/v1/models") {
    return api.client().ask("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n").status;
  };
  for (const char* host : {"localhost", "LOCALHOST:8080", "127.0.0.1:80", "[::1]:8080"})
    EXPECT_EQ(status(host), 200) << host;
  for (const char* host : {"evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[::2]", "0.0.0.0"}) {
    EXPECT_EQ(status(host), 403) << host;
    EXPECT_EQ(status(host, "/livez"), 403) << host;
    EXPECT_EQ(status(host, "/"), 403) << host << ": a page of somebody else's name gets no page of ours";
  }
  EXPECT_EQ(api.client().ask("GET http://evil.example/v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n").status, 403);
}

TEST(Security, NoOtherOriginIsLetIn) {
  TestApi api;
  const std::string origin = "Origin: https://evil.example\r\n";
  const auto shares = [](const HttpHeaders& headers) {
    for (const HttpHeader& field : headers) {
      if (same_name(std::string_view(field.name).substr(0, 15), "Access-Control-")) return true;
    }
    return false;
  };
  EXPECT_FALSE(shares(api.get("/v1/models", origin).headers));
  const JsonAnswer refused = api.post("/v1/chat/completions", chat(), origin);
  EXPECT_EQ(refused.status, 403);
  EXPECT_FALSE(shares(refused.headers));
  const Answer preflight = api.client().ask("OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n" + origin +
                                            "Access-Control-Request-Method: POST\r\n\r\n");
  EXPECT_EQ(preflight.status, 405);
  EXPECT_FALSE(shares(preflight.headers));
  // What a page may send to others without asking: forms and plain texts.
  const std::string body = dump_json(chat());
  for (const char* type : {"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
                           "text/plain; application/json"}) {
    const std::string request = std::string("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: ") +
                                type + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    EXPECT_EQ(api.client().ask(request).status, 415) << type;
  }
}

const std::vector<std::string>& foreign_origins() {
  static const std::vector<std::string> kOrigins{"https://evil.example",
                                                 "null",
                                                 "",
                                                 "http://localhost:9090",
                                                 "http://localhost",
                                                 "http://localhost.evil.example:8080",
                                                 "file://",
                                                 "http://localhost:8080/"};
  return kOrigins;
}

/// Of a server that is asked as localhost:8080.
Answer ask_from(TestApi& api, const std::string& method, const std::string& path, const std::string& fields,
                const std::string& body = "") {
  return api.client().ask(method + " " + path + " HTTP/1.1\r\nHost: localhost:8080\r\n" + fields +
                          "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
}

/// Browsers send forms of any page without asking, uploads included.
TEST(Security, PagesOfOtherOriginsUploadNothing) {
  TemporaryDirectory dir("security");
  const auto store = Store::open(dir.path() / "store").value();
  TestApi api;
  api.api().services().store = store.get();
  const std::string form =
      "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n"
      "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n{}\r\n--XX--\r\n";
  const auto upload = [&](const std::string& origins) {
    return ask_from(api, "POST", "/v1/files", origins + "Content-Type: multipart/form-data; boundary=XX\r\n", form);
  };
  const auto files = [&] { return Json::parse(ask_from(api, "GET", "/v1/files", "").body)["data"].size(); };
  const std::string ours = "Origin: http://localhost:8080\r\n";
  for (const std::string& origin : foreign_origins()) {
    SCOPED_TRACE(origin);
    const std::string theirs = "Origin: " + origin + "\r\n";
    const Answer refused = upload(theirs);
    EXPECT_EQ(refused.status, 403);
    EXPECT_NE(refused.body.find("\"origin_not_allowed\""), std::string::npos) << refused.body;
    EXPECT_EQ(upload(ours + theirs).status, 403);
  }
  EXPECT_EQ(files(), 0u);
  EXPECT_EQ(upload(ours).status, 200) << "the page";
  EXPECT_EQ(upload("").status, 200) << "clients, which name no origin";
  EXPECT_EQ(files(), 2u);
}

TEST(Security, PagesOfOtherOriginsChangeNothing) {
  TestApi api;
  for (const std::string& origin : foreign_origins()) {
    SCOPED_TRACE(origin);
    const std::string theirs = "Origin: " + origin + "\r\n";
    for (const ApiRoute& route : api_routes()) {
      const int status = ask_from(api, route.method, route.path, theirs).status;
      EXPECT_EQ(status == 403, std::string_view(route.method) != "GET")
          << route.method << " " << route.path << " " << status;
    }
    for (const char* method : {"PUT", "PATCH"})
      EXPECT_EQ(ask_from(api, method, "/v1/files", theirs).status, 403) << method;
    EXPECT_EQ(ask_from(api, "POST", "/no/such/path", theirs).status, 403);
    EXPECT_EQ(ask_from(api, "GET", "/v1/models", theirs).status, 200) << "it may not read the answer";
  }
  EXPECT_EQ(api.post("/v1/completions", {{"prompt", "x"}, {"max_tokens", 1}}, "Origin: http://localhost\r\n").status,
            200);
}

TEST(Security, PagesOfOtherOriginsAreRefusedBeforeTheirKey) {
  TemporaryDirectory dir("security");
  const auto store = Store::open(dir.path() / "store").value();
  NullLogger log;
  KeyDoor door(*store, log);
  const std::string key = "X-Api-Key: " + store->keys().create({.name = "key"}).value().secret + "\r\n";
  const std::string theirs = "Origin: https://evil.example\r\n";
  TestApi api({}, {}, &door);
  const Json ask{{"prompt", "x"}, {"max_tokens", 1}};
  EXPECT_EQ(api.post("/v1/completions", ask, key).status, 200);
  EXPECT_EQ(api.post("/v1/completions", ask, key + theirs).json["error"]["code"], "origin_not_allowed");
  EXPECT_EQ(api.post("/v1/completions", ask, theirs).json["error"]["code"], "origin_not_allowed");
}

TEST(Security, OriginsThatAreNamedAreLetIn) {
  const ListedOrigins listed({parse_origin("https://shop.example:443").value(),
                              parse_origin("http://[::1]:3000").value(),
                              parse_origin("chrome-extension://abc").value()});
  TestApi api({.origins = &listed});
  const auto status = [&](const std::string& origin) {
    return api.post("/v1/completions", {{"prompt", "x"}, {"max_tokens", 1}}, "Origin: " + origin + "\r\n").status;
  };
  for (const char* origin : {"https://shop.example", "http://[::1]:3000", "chrome-extension://abc", "http://localhost"})
    EXPECT_EQ(status(origin), 200) << origin;
  for (const char* origin : {"http://shop.example", "https://shop.example:444", "https://a.shop.example",
                             "chrome-extension://abd", "http://[::1]", "null"})
    EXPECT_EQ(status(origin), 403) << origin;
  for (const char* text : {"*", "null", "", "shop.example", "https://", "https://shop.example/", "https://*.example",
                           "https://user@shop.example", "HTTPS://shop.example", "https://shop.example:port"})
    EXPECT_FALSE(parse_origin(text)) << text;
}

TEST(Security, APagesOriginIsTheHostItWasLoadedFrom) {
  struct Case {
    const char *origin, *host;
    bool tls, other;
  };
  for (const Case& c : {
           Case{"http://localhost:8080", "localhost:8080", false, false},
           Case{"http://localhost:8080", "LOCALHOST:8080", false, false},
           Case{"http://localhost", "localhost", false, false},
           Case{"http://localhost", "localhost:80", false, false},
           Case{"http://[::1]:8080", "[::1]:8080", false, false},
           Case{"https://tailor.example", "tailor.example", true, false},
           Case{"https://tailor.example:8443", "tailor.example:8443", true, false},
           Case{"https://tailor.example", "tailor.example", false, false},  // behind what ends TLS
           Case{"https://tailor.example", "tailor.example:443", false, false},
           Case{"https://tailor.example", "127.0.0.1:8080", false, true},  // and does not keep Host
           Case{"http://tailor.example", "tailor.example", true, true},
           Case{"http://tailor.example:443", "tailor.example:443", true, true},
           Case{"http://localhost:8080", "localhost", false, true},
           Case{"https://localhost", "localhost:80", false, true},
           Case{"http://[::1]:8080", "[::2]:8080", false, true},
           Case{"ftp://localhost", "localhost", false, true},
       }) {
    HttpHead head;
    head.headers = {{"Host", c.host}, {"Origin", c.origin}};
    head.over_tls = c.tls;
    EXPECT_EQ(is_of_other_origin(head), c.other) << c.origin << " " << c.host << " " << c.tls;
    head.over_unix_socket = true;
    EXPECT_EQ(is_of_other_origin(head), c.other) << "the same for a proxy at a Unix socket";
  }
  HttpHead head;
  EXPECT_FALSE(is_of_other_origin(head));
  head.headers = {{"Origin", "http://localhost"}};
  EXPECT_TRUE(is_of_other_origin(head)) << "HTTP/1.0 without Host";
}

TEST(Security, EveryAnswerForbidsSniffing) {
  TestApi api;
  for (const ApiRoute& route : api_routes()) {
    const Answer answer = api.client().ask(std::string(route.method) + " " + route.path +
                                           " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    ASSERT_NE(answer.headers.find("X-Content-Type-Options"), nullptr) << route.path;
    EXPECT_EQ(*answer.headers.find("X-Content-Type-Options"), "nosniff") << route.path;
    EXPECT_EQ(answer.headers.count("X-Content-Type-Options"), 1U) << route.path;
  }
  const Answer stream =
      api.client().ask(TestApi::post_text("/v1/chat/completions", dump_json(chat({{"stream", true}}))));
  EXPECT_NE(stream.headers.find("X-Content-Type-Options"), nullptr);
  const Answer bad = api.client().ask("NONSENSE\r\n\r\n");
  EXPECT_NE(bad.headers.find("X-Content-Type-Options"), nullptr);
}

TEST(Security, LimitsOfARequest) {
  TestApi api;
  const Json tool{{"type", "function"}, {"function", {{"name", "f"}}}};
  Json bias = Json::object();
  for (int i = 0; i <= 1024; ++i) bias[std::to_string(i)] = 1;
  Json wide = Json::object();
  for (int i = 0; i <= 1000; ++i) wide["properties"]["p" + std::to_string(i)] = true;
  const auto schema = [](Json of) { return Json{{"guided_json", std::move(of)}}; };
  struct Case {
    Json more;
    const char* param;
    const char* text;
  };
  const std::vector<Case> cases{
      {{{"tools", std::vector<Json>(129, tool)}}, "tools", "at most 128"},
      {{{"logit_bias", bias}}, "logit_bias", "at most 1024"},
      {{{"logit_bias", {{"99999999999999999999", 1}}}}, "logit_bias", "token ids"},
      {{{"stop_token_ids", std::vector<int>(129, 1)}}, "stop_token_ids", "short list"},
      {{{"stop", std::vector<std::string>(17, "a")}}, "stop", "at most 16"},
      {{{"stop", {"a", std::string(257, 'a')}}}, "stop", "at most 256 bytes"},
      {{{"n", 17}}, "n", "from 1 to 16"},
      {{{"n", 1e300}}, "n", "from 1 to 16"},
      {{{"top_logprobs", 21}, {"logprobs", true}}, "top_logprobs", "from 0 to 20"},
      {{{"max_tokens", (1 << 20) + 1}}, "max_tokens", "from 0 to 1048576"},
      {{{"max_tokens", 18446744073709551615U}}, "max_tokens", "from 0 to 1048576"},
      {{{"cache_salt", std::string(1025, 'a')}}, "cache_salt", "at most 1024"},
      {{{"messages", std::vector<Json>(2049, Json{{"role", "user"}, {"content", "x"}})}}, "messages", "at most 2048"},
      {{{"guided_choice", std::vector<std::string>(10'001, "a")}}, "guided_choice", "at most 10000"},
      {{{"guided_regex", std::string(4097, 'a')}}, "guided_regex", ""},
      {{{"guided_regex", "(a{1000}){1000}"}}, "guided_regex", ""},
      {{{"guided_grammar", "root ::= \"" + std::string(257 << 10, 'a') + "\""}}, "guided_grammar", ""},
      {schema({{"description", std::string(257 << 10, 'a')}}), "guided_json", "larger than 256 KiB"},
      {schema(wide), "guided_json", "1000"},
      {schema({{"$ref", "#"}}), "guided_json", "$ref"},
      {schema({{"$ref", "https://example.com/schema"}}), "guided_json", "is not within this schema"},
  };
  for (const Case& c : cases) {
    const JsonAnswer got = api.post("/v1/chat/completions", chat(c.more));
    EXPECT_EQ(got.status, 400) << c.param << " " << c.text << got.json;
    if (got.status != 400) continue;
    EXPECT_EQ(got.json["error"]["param"], c.param) << got.json;
    EXPECT_NE(got.json["error"]["message"].get<std::string>().find(c.text), std::string::npos) << got.json;
  }
  EXPECT_EQ(api.post("/v1/completions", {{"prompt", std::vector<std::string>(129, "a")}}).json["error"]["param"],
            "prompt");
  EXPECT_EQ(
      api.post("/v1/completions", {{"prompt", std::vector<std::string>(9, "a")}, {"n", 16}}).json["error"]["param"],
      "prompt");
  EXPECT_EQ(api.post("/v1/embeddings", {{"input", std::vector<std::string>(2049, "a")}}).json["error"]["param"],
            "input");
  EXPECT_EQ(api.post("/v1/rerank", {{"query", "a"}, {"documents", std::vector<std::string>(2049, "a")}})
                .json["error"]["param"],
            "documents");
}

TEST(Security, JsonThatParsersReadDifferentlyIsRefused) {
  TestApi api;
  const auto status = [&](const std::string& field) {
    return api
        .post("/v1/chat/completions",
              Json(R"({"messages":[{"role":"user","content":"x"}],"max_tokens":1,)" + field + "}"))
        .status;
  };
  EXPECT_EQ(status(R"("user":"a")"), 200);
  for (const char* field :
       {R"("temperature":NaN)", R"("temperature":Infinity)", R"("temperature":-Infinity)", R"("temperature":1e999)",
        R"("temperature":.5)", R"("temperature":+1)", R"("temperature":0x1)", R"("n":01)", R"("n":1,"n":2)",
        R"("stream_options":{"a":1,"a":2})", R"("x":[{"a":{"b":1,"b":1}}])", R"("user":'a')", R"("user":"a",)",
        R"("user":"\ud800")", R"("user":"a"/**/)", "\"user\":\"a\nb\"", "\"user\":\"\xC0\xAF\""})
    EXPECT_EQ(status(field), 400) << field;
  EXPECT_EQ(status("\"x\":" + nested(63)), 200);
  EXPECT_EQ(status("\"x\":" + nested(64)), 400);
  EXPECT_EQ(status("\"x\":" + nested(kDeep)), 400);
}

/// A text within a request has brackets of its own, which the depth of the request does not count.
TEST(Security, DeepTextsWithinARequestAreRefused) {
  TestApi api;
  const std::string deep = "{\"a\":" + nested(kDeep) + "}";
  const Json call{
      {"role", "assistant"},
      {"tool_calls", {{{"id", "a"}, {"type", "function"}, {"function", {{"name", "f"}, {"arguments", deep}}}}}}};
  const JsonAnswer arguments =
      api.post("/v1/chat/completions", chat({{"messages", {{{"role", "user"}, {"content", "x"}}, call}}}));
  EXPECT_EQ(arguments.status, 400);
  EXPECT_EQ(arguments.json["error"]["param"], "messages[1].tool_calls[0].function.arguments") << arguments.json;
  const JsonAnswer schema = api.post("/v1/chat/completions", chat({{"guided_json", deep}}));
  EXPECT_EQ(schema.status, 400);
  EXPECT_EQ(schema.json["error"]["param"], "guided_json") << schema.json;
  EXPECT_EQ(api.post("/v1/chat/completions", chat({{"tools", deep}})).status, 400);
  EXPECT_EQ(api.post("/v1/chat/completions", chat()).status, 200) << "and the server is there";
}

TEST(Security, NoTemplateOfTheRequestIsRun) {
  TestApi api;
  const JsonAnswer plain = api.post("/v1/chat/completions", chat());
  const JsonAnswer got =
      api.post("/v1/chat/completions",
               chat({{"chat_template", "{{ raise_exception('run') }}"}, {"chat_template_kwargs", {{"a", 1}}}}));
  ASSERT_EQ(got.status, 200) << got.json;
  EXPECT_EQ(*got.headers.find("X-Ignored-Params"), "chat_template, chat_template_kwargs");
  EXPECT_EQ(got.json["choices"], plain.json["choices"]);
}

TEST(Security, NothingIsFetchedForARequest) {
  TestApi api;
  for (const char* type : {"image_url", "input_audio", "file", "video_url"}) {
    const Json part{{"type", type}, {type, {{"url", "http://169.254.169.254/latest/meta-data"}}}};
    const JsonAnswer got =
        api.post("/v1/chat/completions", chat({{"messages", {{{"role", "user"}, {"content", Json::array({part})}}}}}));
    EXPECT_EQ(got.status, 400) << type;
    EXPECT_EQ(got.json["error"]["param"], "messages[0].content[0].type") << got.json;
  }
}

TEST(Security, MetricsHoldNothingThatClientsChose) {
  TemporaryDirectory dir("security");
  const auto store = Store::open(dir.path() / "store").value();
  NullLogger log;
  KeyDoor door(*store, log);
  const CreatedApiKey key =
      store->keys().create({.name = "keyname", .scopes = {Scope::kInfer, Scope::kMetrics}}).value();
  const std::string shown = "Authorization: Bearer " + key.secret + "\r\n";
  std::unique_ptr<ServerMetrics> metrics;
  TestApi api({}, {}, &door, &metrics);
  const auto text = [&] {
    return api.client().ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n" + shown + "\r\n").body;
  };
  const auto series = [](const std::string& all) {
    std::set<std::string> out;
    for (const MetricFamily& family : parse_metrics(all).value()) {
      for (const MetricSample& sample : family.samples) {
        std::string name = sample.name;
        for (const auto& [label, value] : sample.labels) name += "," + label + "=" + value;
        out.insert(name);
      }
    }
    return out;
  };
  api.post("/v1/completions", {{"prompt", "x"}, {"max_tokens", 1}}, shown);
  api.get("/v1/models/tiny", shown);
  const std::set<std::string> before = series(text());
  for (int i = 0; i < 20; ++i) {
    const std::string odd = "chosen-" + std::to_string(i);
    api.post("/v1/completions", {{"model", odd}, {"prompt", "x"}, {"user", odd}},
             shown + "X-Request-Id: " + odd + "\r\n");
    api.post("/v1/completions", {{"prompt", odd}, {"user", odd}, {"cache_salt", odd}, {"max_tokens", 1}}, shown);
    api.get("/v1/models/" + odd, shown + "User-Agent: " + odd + "\r\n");
    api.get("/" + odd, shown);
  }
  const std::string after = text();
  for (const std::string& part : {std::string("chosen-"), std::string("keyname"), key.key.id, key.secret.substr(0, 12)})
    EXPECT_EQ(after.find(part), std::string::npos) << part;
  const std::set<std::string> now = series(after);
  EXPECT_LE(now.size(), before.size() + 4) << "at most classes of status that had not come before";
}

/// Trains nothing.
class IdleTuner final : public FineTuner {
 public:
  Status ready() const override { return {}; }
  Result<std::string> check(const std::filesystem::path&, const std::string&) override {
    return std::string("1 example");
  }
  Result<FineTuned> train(const FineTuneSpec&, const FineTuneProgress&, const CancelToken&) override {
    return Error{ErrorCode::kInvalidArgument, "not trained", ""};
  }
};

TEST(Security, WhatOneKeyBroughtNoOtherSees) {
  TemporaryDirectory dir("security");
  const auto store = Store::open(dir.path() / "store").value();
  NullLogger log;
  KeyDoor door(*store, log);
  const auto key = [&] { return "X-Api-Key: " + store->keys().create({.name = "key"}).value().secret + "\r\n"; };
  const std::string mine = key(), other = key();
  TestApi api({}, {}, &door);
  IdleTuner tuner;
  FineTuning tuning(*store, api.models(), tuner, {.share = std::make_shared<ComputeShare>(1)}, log);
  api.api().services().store = store.get();
  api.api().services().tuning = &tuning;
  const std::string form =
      "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n"
      "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\nsecret\r\n--XX--\r\n";
  const Answer sent = api.client().ask("POST /v1/files HTTP/1.1\r\nHost: localhost\r\n" + mine +
                                       "Content-Type: multipart/form-data; boundary=XX\r\nContent-Length: " +
                                       std::to_string(form.size()) + "\r\n\r\n" + form);
  ASSERT_EQ(sent.status, 200) << sent.body;
  const std::string file = Json::parse(sent.body)["id"];
  const Json wish{{"model", "tiny"}, {"training_file", file}};
  const JsonAnswer job = api.post("/v1/fine_tuning/jobs", wish, mine);
  ASSERT_EQ(job.status, 200) << job.json;
  const std::string at_file = "/v1/files/" + file, at_job = "/v1/fine_tuning/jobs/" + job.json["id"].get<std::string>();
  for (const std::string& path : {at_file, at_file + "/content", at_job, at_job + "/events", at_job + "/checkpoints"}) {
    EXPECT_EQ(api.client().ask("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n" + mine + "\r\n").status, 200) << path;
    EXPECT_EQ(api.get(path, other).status, 404) << path;
  }
  for (const std::string& list : {std::string("/v1/files"), std::string("/v1/fine_tuning/jobs")}) {
    EXPECT_EQ(api.get(list, mine).json["data"].size(), 1u) << list;
    EXPECT_EQ(api.get(list, other).json["data"].size(), 0u) << list;
  }
  EXPECT_EQ(api.get("/v1/files?after=" + file, other).status, 400) << "its id tells nothing either";
  EXPECT_EQ(api.post("/v1/fine_tuning/jobs", wish, other).json["error"]["code"], "file_not_found");
  EXPECT_EQ(api.post(at_job + "/cancel", Json::object(), other).status, 404);
  EXPECT_EQ(api.client().ask("DELETE " + at_file + " HTTP/1.1\r\nHost: localhost\r\n" + other + "\r\n").status, 404);
  api.server().stop();
}

TEST(Security, TheUsualLimitsAreThoseOfTheList) {
  const HttpServerOptions http;
  EXPECT_EQ(http.limits.parser.header_bytes, 16U << 10);
  EXPECT_EQ(http.limits.parser.header_count, 100U);
  EXPECT_EQ(http.timeouts.header, std::chrono::seconds(10));
  EXPECT_EQ(http.timeouts.idle, std::chrono::seconds(15));
  EXPECT_GT(http.timeouts.body_bytes_per_second, 0U);
  EXPECT_LE(http.limits.connections_per_address, http.limits.connections / 4);
  const ApiLimits api;
  EXPECT_EQ(api.choices, 16);
  EXPECT_EQ(api.stop_texts, 16U);
  EXPECT_EQ(api.stop_bytes, 256U);
}

TEST(Security, PathsInErrorsAreTheirLastNames) {
  EXPECT_EQ(without_directories("/srv/models/a.gguf: not a GGUF file"), "a.gguf: not a GGUF file");
  EXPECT_EQ(without_directories("cannot copy '/home/alice/x y' to (/tmp/b/)"), "cannot copy 'x y' to (b/)");
  EXPECT_EQ(without_directories("/etc/passwd"), "passwd");
  EXPECT_EQ(without_directories("GET /readyz, tokens/s, a/b/c and 1 / 2 stay"),
            "GET /readyz, tokens/s, a/b/c and 1 / 2 stay");
  EXPECT_EQ(without_directories("#/$defs/a and response_format/x stay"), "#/$defs/a and response_format/x stay");
  EXPECT_EQ(without_directories("//"), "//");
  EXPECT_EQ(without_directories(""), "");
  const ApiError told =
      api_error({ErrorCode::kCorruptData, "/root/.local/share/tailor/x: is damaged", "look at /var/log/tailor"});
  EXPECT_EQ(told.message, "x: is damaged (look at tailor)");
  const ApiError ours = api_error({ErrorCode::kIo, "/root/secret: No such file", ""});
  EXPECT_EQ(ours.status, 500);
  EXPECT_EQ(ours.message.find("secret"), std::string::npos);
  EXPECT_NE(ours.cause.find("/root/secret: No such file"), std::string::npos) << "for the log";
  EXPECT_EQ(error_response(ours).body.find("secret"), std::string::npos);
  TestApi api;
  const HttpResponse upload =
      api.api().error_response(507, "cannot write /srv/store/files/x: No space left on device", nullptr);
  EXPECT_EQ(upload.body.find("/srv"), std::string::npos) << upload.body;
  EXPECT_NE(upload.body.find("No space left"), std::string::npos) << upload.body;
}

}  // namespace
}  // namespace tailor
