/// `tailor serve` as a user runs it: start, questions over HTTP, signals.

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <csignal>
#include <fstream>

#include "core/hash.h"
#include "infer/test_models.h"
#include "serve/test_packages.h"
#include "serve/test_server.h"
#include "serve/test_tls_client.h"
#include "tests/recipes/served.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

/// A request that the server took and that is not complete: it runs until finish().
class HeldRequest {
 public:
  explicit HeldRequest(const Served& server) : client_(server.client()) {
    client_.send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" +
                 fmt::format("Content-Length: {}\r\nExpect: 100-continue\r\n\r\n", body_.size()));
    EXPECT_TRUE(client_.read_through("100 Continue\r\n\r\n").has_value());
  }
  Answer finish() { return client_.ask(body_); }

 private:
  const std::string body_ = dump_json({{"prompt", "x"}, {"max_tokens", 2}});
  TestClient client_;
};

/// Whether it says so, once it has heard the signal.
bool drains(const Served& server) {
  return eventually([&] { return server.client().ask(Served::request("GET", "/readyz", "")).status == 503; });
}

TEST(Serve, ABaseModelAnswersAndDrains) {
  Served server({"--model", tailor::testing::tiny_llama().string(), "--threads", "2"});
  ASSERT_NE(server.line().find("tailor serves at http://127.0.0.1:"), std::string::npos) << server.line();
  EXPECT_EQ(server.ask("GET", "/readyz")["status"], "ok");
  EXPECT_EQ(server.ask("GET", "/v1/models")["data"][0]["id"], "tiny-llama");
  auto elsewhere = server.client();
  EXPECT_EQ(elsewhere.ask("GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n").status, 403)
      << "without keys, by its own names only";
  const Json chat = server.ask("POST", "/v1/chat/completions",
                               {{"messages", {{{"role", "user"}, {"content", "Hi"}}}}, {"max_tokens", 4}});
  EXPECT_EQ(chat["usage"]["completion_tokens"], 4);
  auto streaming = server.client();
  streaming.send(
      Served::request("POST", "/v1/completions",
                      dump_json({{"prompt", "x"}, {"stream", true}, {"max_tokens", 500}, {"ignore_eos", true}})));
  ASSERT_TRUE(streaming.read_through("\"text\":").has_value());
  HeldRequest held(server);
  auto kept = server.client();
  EXPECT_EQ(kept.ask(Served::request("GET", "/livez", "")).status, 200);
  server.signal(SIGTERM);
  ASSERT_TRUE(drains(server));
  EXPECT_EQ(server.ask("GET", "/readyz", nullptr, 503)["error"]["message"], "the server is draining");
  EXPECT_EQ(server.ask("GET", "/livez")["status"], "ok");
  auto fresh = server.client();
  for (TestClient* client : {&fresh, &kept}) {
    const Answer refused = client->ask(Served::request("POST", "/v1/completions", "{\"prompt\": \"x\"}"));
    EXPECT_EQ(refused.status, 503) << refused.body;
    EXPECT_NE(refused.headers.find("Retry-After"), nullptr);
    EXPECT_EQ(*refused.headers.find("Connection"), "close");
  }
  EXPECT_EQ(held.finish().status, 200) << "it came before";
  const std::string rest = streaming.read_to_end();
  EXPECT_NE(rest.find("\"finish_reason\":\"length\""), std::string::npos);
  EXPECT_NE(rest.find("data: [DONE]"), std::string::npos);
  EXPECT_EQ(server.wait(), 0);
}

TEST(Serve, WithNothingToAnswerItEndsAtOnce) {
  Served server({"--model", tailor::testing::tiny_llama().string(), "--threads", "1"});
  auto idle = server.client();
  EXPECT_EQ(idle.ask(Served::request("GET", "/livez", "")).status, 200);
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(), 0);
  EXPECT_TRUE(idle.closed());
}

TEST(Serve, ASecondSignalEndsAtOnce) {
  Served server({"--model", tailor::testing::tiny_llama().string(), "--threads", "1"});
  const HeldRequest held(server);
  server.signal(SIGTERM);
  ASSERT_TRUE(drains(server));
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(), 130);
}

TEST(Serve, ALabelPackageClassifiesAsPredictDoes) {
  const TemporaryDirectory dir;
  write_file_atomic(dir.path() / "rows.csv", small_csv()).value();
  const Outcome fitted =
      run({"fit", (dir.path() / "rows.csv").string(), "--text", "message", "--label", "intent", "--methods", "tfidf",
           "--budget", "60s", "--out", (dir.path() / "support").string(), "--quiet"});
  ASSERT_EQ(fitted.code, 0) << fitted.err;
  const std::string package = (dir.path() / "support" / "package").string(), text = "I forgot my password";
  Served server({package});
  EXPECT_EQ(server.ask("GET", "/v1/models")["data"][0]["id"], "support");
  const Json got = server.ask("POST", "/v1/classify", {{"input", text}});
  const Outcome predicted = run({"predict", package, text, "--json"});
  ASSERT_EQ(predicted.code, 0) << predicted.err;
  EXPECT_NE(predicted.out.find("\"" + got["data"][0]["label"].get<std::string>() + "\""), std::string::npos)
      << predicted.out << got;
  EXPECT_EQ(server.ask("POST", "/v1/chat/completions",
                       {{"messages", {{{"role", "user"}, {"content", text}}}}})["choices"][0]["message"]["content"],
            got["data"][0]["label"]);
}

TEST(Serve, PackagesOfTagsAndAnswersSayWhatPredictSays) {
  const TemporaryDirectory dir;
  write_tag_package(dir.path() / "tags", {0, 0, 0, 0, 0}, 0.5f);
  write_span_package(dir.path() / "spans", 0.5f, false);
  const std::string tags = (dir.path() / "tags").string(), spans = (dir.path() / "spans").string();
  const std::string text = "Anna met Zoë in New York.", question = "Whom did she meet?";
  Served server({tags, spans});
  const Json entities = server.ask("POST", "/v1/tag", {{"model", "tags"}, {"input", text}})["data"][0]["entities"];
  const Outcome tagged = run({"predict", tags, text, "--json"});
  ASSERT_EQ(tagged.code, 0) << tagged.err;
  const Json expected = Json::parse(tagged.out)["spans"];
  ASSERT_EQ(entities.size(), expected.size());
  for (std::size_t e = 0; e < entities.size(); ++e) {
    for (const char* field : {"label", "text", "start", "end"}) EXPECT_EQ(entities[e][field], expected[e][field]);
  }
  const Json answer =
      server.ask("POST", "/v1/extract", {{"model", "spans"}, {"question", question}, {"context", text}})["data"][0];
  const Outcome answered = run({"predict", spans, question, text, "--json"});
  ASSERT_EQ(answered.code, 0) << answered.err;
  for (const char* field : {"answer", "start", "end"})
    EXPECT_EQ(answer[field], Json::parse(answered.out)[field]) << answered.out;
}

TEST(Serve, RowsAreNotShownWhereTheFlagSaysSo) {
  const TemporaryDirectory dir;
  write_neighbours_package(dir.path() / "rows", true);
  const std::string rows = (dir.path() / "rows").string();
  Served shows({rows}), hides({rows, "--no-nearest-rows"});
  EXPECT_EQ(shows.ask("POST", "/v1/classify", {{"input", "x"}, {"nearest", 2}})["data"][0]["nearest"].size(), 2u);
  EXPECT_EQ(hides.ask("POST", "/v1/classify", {{"input", "x"}, {"nearest", 2}}, 400)["error"]["param"], "nearest");
}

class ServeBottlenecks : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
  }
  std::string tuned(const std::string& data, const std::string& content, std::vector<std::string> more) {
    write_file_atomic(dir_.path() / data, content).value();
    std::vector<std::string> arguments{"tune",
                                       (dir_.path() / data).string(),
                                       "--model",
                                       tailor::testing::tiny_llama().string(),
                                       "--max-steps",
                                       "3",
                                       "--quiet",
                                       "--out",
                                       (dir_.path() / "run").string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome r = run(arguments);
    EXPECT_EQ(r.code, 0) << r.err;
    return (dir_.path() / "run" / "package").string();
  }
  const TemporaryDirectory dir_;
};

TEST_F(ServeBottlenecks, TextsAreThoseOfGenerate) {
  const std::string package =
      tuned("chat.jsonl",
            small_conversations([](const char* thing, std::size_t i) { return fmt::format("{} {}", thing, i); }),
            {"--method", "adapter-houlsby", "--answers", "1"});
  const std::string question = "Is the flat free?";
  const Outcome said = run({"generate", package, question, "--max-tokens", "12", "--json"});
  ASSERT_EQ(said.code, 0) << said.err;
  Served server({package});
  const Json body{{"messages", {{{"role", "user"}, {"content", question}}}}, {"max_tokens", 12}, {"temperature", 0}};
  const auto answer = [&] {
    return server.ask("POST", "/v1/chat/completions", body)["choices"][0]["message"]["content"];
  };
  EXPECT_EQ(answer(), Json::parse(said.out)["text"]);
  // log p of a prompt's tokens, and answers that differ by their place.
  const Json scored = server.ask("POST", "/v1/completions",
                                 {{"prompt", "one two three"}, {"max_tokens", 0}, {"echo", true}, {"logprobs", 1}});
  const Json& logprobs = scored["choices"][0]["logprobs"]["token_logprobs"];
  ASSERT_GE(logprobs.size(), 3u);
  for (std::size_t i = 1; i < logprobs.size(); ++i) EXPECT_LT(logprobs[i].get<double>(), 0);
  EXPECT_EQ(server.ask("POST", "/v1/completions", {{"prompt", "one"}, {"n", 3}, {"max_tokens", 4}})["choices"].size(),
            3u);
  // A client that goes leaves the place to the next one.
  {
    auto goes = server.client();
    goes.send(
        Served::request("POST", "/v1/completions",
                        dump_json({{"prompt", "x"}, {"stream", true}, {"max_tokens", 1900}, {"ignore_eos", true}})));
    ASSERT_TRUE(goes.read_through("\"text\":").has_value());
  }
  EXPECT_EQ(answer(), Json::parse(said.out)["text"]);
}

TEST_F(ServeBottlenecks, AWorkerThatEndsIsStartedAgain) {
  const std::string package =
      tuned("chat.jsonl",
            small_conversations([](const char* thing, std::size_t i) { return fmt::format("{} {}", thing, i); }),
            {"--method", "adapter-houlsby", "--answers", "1"});
  Served server({package});
  const Json body{{"messages", {{{"role", "user"}, {"content", "Hi"}}}}, {"max_tokens", 4}, {"temperature", 0}};
  const Json before = server.ask("POST", "/v1/chat/completions", body)["choices"];
  int child = 0;
  std::ifstream(fmt::format("/proc/{0}/task/{0}/children", server.pid())) >> child;
  ASSERT_GT(child, 1);
  kill(child, SIGKILL);
  server.ask("POST", "/v1/chat/completions", body, 500);
  EXPECT_EQ(server.ask("POST", "/v1/chat/completions", body)["choices"], before);
}

TEST_F(ServeBottlenecks, LabelsAreThoseOfPredict) {
  const std::string package =
      tuned("rows.csv", small_csv(), {"--text", "message", "--label", "intent", "--method", "adapter-pfeiffer"});
  Served server({package});
  for (const char* text : {"I forgot my password", "when will my card arrive"}) {
    const Outcome predicted = run({"predict", package, text, "--json"});
    ASSERT_EQ(predicted.code, 0) << predicted.err;
    for (const bool alone : {false, true}) {
      const Json got = server.ask("POST", "/v1/classify", {{"input", text}, {"label_only", alone}});
      EXPECT_TRUE(contains(predicted.out, "\"" + got["data"][0]["label"].get<std::string>() + "\""))
          << predicted.out << got;
    }
  }
}

TEST(Serve, AFineTuningJobTrainsAndItsModelIsServed) {
  if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
  const TemporaryDirectory dir;
  const std::string data = (dir.path() / "data").string(), model = tailor::testing::tiny_llama().string();
  const std::string rows =
      small_conversations([](const char* thing, std::size_t i) { return fmt::format("{} {}", thing, i); });
  std::string tuned;
  {
    Served server({"--model", model, "--threads", "2", "--data", data});
    const std::string form =
        "--B\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n"
        "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"chat.jsonl\"\r\n\r\n" +
        rows + "\r\n--B--\r\n";
    auto connection = server.client();
    const Json file =
        Json::parse(connection.ask(Served::request("POST", "/v1/files", form, "multipart/form-data; boundary=B")).body);
    const Json job = server.ask("POST", "/v1/fine_tuning/jobs",
                                {{"model", "tiny-llama"},
                                 {"training_file", file["id"]},
                                 {"suffix", "test"},
                                 {"hyperparameters", {{"n_epochs", 1}}}});
    const std::string path = "/v1/fine_tuning/jobs/" + job["id"].get<std::string>();
    Json now;
    do {
      now = server.ask("GET", path);
    } while (now["status"] != "succeeded" && now["status"] != "failed");
    ASSERT_EQ(now["status"], "succeeded") << now;
    EXPECT_GT(now["trained_tokens"].get<int>(), 0);
    tuned = now["fine_tuned_model"];
    EXPECT_EQ(
        server.ask(
            "POST", "/v1/chat/completions",
            {{"model", tuned}, {"messages", {{{"role", "user"}, {"content", "Hi"}}}}, {"max_tokens", 2}})["model"],
        tuned);
    const Json events = server.ask("GET", path + "/events?limit=100")["data"];
    EXPECT_TRUE(std::any_of(events.begin(), events.end(), [](const Json& event) { return event["type"] == "metrics"; }))
        << events;
    server.signal(SIGTERM);
    EXPECT_EQ(server.wait(), 0);
  }
  Served again({"--model", model, "--threads", "2", "--data", data});
  EXPECT_EQ(again.ask("POST", "/v1/completions", {{"model", tuned}, {"prompt", "Hi"}, {"max_tokens", 2}})["model"],
            tuned);
  EXPECT_EQ(again.ask("DELETE", "/v1/models/" + tuned), Json({{"id", tuned}, {"object", "model"}, {"deleted", true}}));
  EXPECT_EQ(again.ask("GET", "/v1/models/" + tuned, nullptr, 404)["error"]["code"], "model_not_found");
}

TEST(Serve, PromptsGetIntoNoCoreFileUnlessAskedFor) {
  const std::vector<std::string> arguments{"--model", tailor::testing::tiny_llama().string(), "--threads", "1"};
  const Served server(arguments);
  EXPECT_EQ(server.core_limits(), "0 0");
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_CORE, &old), 0);
  const rlimit one{0, std::min<rlim_t>(old.rlim_max, 4096)};
  ASSERT_EQ(setrlimit(RLIMIT_CORE, &one), 0);
  setenv("TAILOR_CORE_DUMPS", "1", 1);
  const Served debugged(arguments);
  unsetenv("TAILOR_CORE_DUMPS");
  EXPECT_EQ(debugged.core_limits(), fmt::format("0 {}", one.rlim_max));
}

TEST(Serve, TellsWhatStartedItThatItIsReady) {
  const TemporaryDirectory dir;
  const std::string path = (dir.path() / "notify").string();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  const int socket = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const timeval patience{20, 0};
  ASSERT_EQ(setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
  ASSERT_EQ(bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  setenv("NOTIFY_SOCKET", path.c_str(), 1);
  const Served server({"--model", tailor::testing::tiny_llama().string(), "--threads", "1"});
  unsetenv("NOTIFY_SOCKET");
  char text[64];
  const ssize_t n = recv(socket, text, sizeof text, 0);
  close(socket);
  EXPECT_EQ(std::string(text, n > 0 ? static_cast<std::size_t>(n) : 0), "READY=1");
}

TEST(Serve, TakesAsManyFileDescriptorsAsItMayHave) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit few{200, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  Served server({"--model", tailor::testing::tiny_llama().string(), "--threads", "1"});
  setrlimit(RLIMIT_NOFILE, &before);
  auto connection = server.client();
  const std::string metrics = connection.ask(Served::request("GET", "/metrics", "")).body;
  EXPECT_NE(metrics.find(fmt::format("process_max_fds {}\n", before.rlim_max)), std::string::npos)
      << metrics.substr(metrics.find("process_"));
}

TEST(Serve, AtAUnixSocket) {
  const TemporaryDirectory dir;
  const fs::path socket = dir.path() / "tailor.sock";
  Served server({"--model", tailor::testing::tiny_llama().string(), "--listen", "unix:" + socket.string()}, false);
  auto client = TestClient::to_unix(socket);
  EXPECT_EQ(client.ask("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
  // The page, through a proxy that keeps Host.
  const auto tokenize = [&](const std::string& origin) {
    std::string request = Served::request("POST", "/tokenize", dump_json({{"content", "x"}}));
    return client.ask(request.insert(request.find("Content-Type"), "Origin: " + origin + "\r\n")).status;
  };
  EXPECT_EQ(tokenize("https://localhost"), 200);
  EXPECT_EQ(tokenize("https://evil.example"), 403);
}

TEST(Serve, APackageOfAnotherBaseIsRefused) {
  const TemporaryDirectory dir;
  const fs::path outside = dir.path() / "outside", inside = dir.path() / "inside";
  const fs::path decoder = tailor::testing::tiny_llama(), encoder = tiny_encoder();
  const std::string expected_decoder = sha256_file(decoder).value(), expected_encoder = sha256_file(encoder).value();
  const auto fails = [&](const fs::path& package, const std::vector<std::string>& parts) {
    const Outcome r = run({"serve", package.string(), "--port", "0", "--data", (dir.path() / "data").string()});
    EXPECT_NE(r.code, 0);
    EXPECT_TRUE(r.out.empty()) << r.out;
    for (const std::string& part : parts) EXPECT_TRUE(contains(r.err, part)) << part << "\n" << r.err;
  };
  const auto change = [](const fs::path& package, auto edit) {
    Json manifest = Json::parse(read_file(package / "manifest.json").value());
    edit(manifest);
    write_file_atomic(package / "manifest.json", dump_json(manifest)).value();
  };
  write_prompt_package(outside, false);
  change(outside, [&](Json& manifest) { manifest["base_model"]["file"] = encoder.string(); });
  fails(outside, {"the base model " + encoder.string() + " is not the one the package was made with", expected_decoder,
                  expected_encoder, "put tiny back there"});
  write_neighbours_package(inside, true);
  tailor::copy_file(decoder, inside / "base.gguf").value();
  fails(inside, {fmt::format("base.gguf has {} bytes, expected {}", fs::file_size(decoder), fs::file_size(encoder)),
                 "copy the package again"});
  // Its entry in the list of files made to fit.
  change(inside, [&](Json& manifest) {
    for (Json& file : manifest["files"]) {
      if (file["path"] != "base.gguf") continue;
      file["bytes"] = fs::file_size(decoder);
      file["sha256"] = expected_decoder;
    }
  });
  fails(inside, {"base.gguf is not the one the package was made with", expected_encoder, expected_decoder});
}

TEST(Serve, FileAndFlagsTogetherMakeTlsWhoseOwnPageIsLetIn) {
  const TemporaryDirectory dir;
  const fs::path certificate = dir.path() / "cert.pem", key = dir.path() / "key.pem",
                 config = dir.path() / "serve.yaml";
  const Identity authority = make_identity("authority"), client = make_identity("client", &authority);
  const Identity own = make_identity("server");
  write_certificate(certificate, own);
  write_key(key, own);
  write_certificate(dir.path() / "ca.pem", authority);
  write_file_atomic(config, "threads: 1\ntls: {client_ca: ca.pem}\n").value();
  const Served server({"--config", config.string(), "--model", tailor::testing::tiny_llama().string(),
                       "--tls-certificate", certificate.string(), "--tls-key", key.string()});
  const auto ask = [&](const TlsClient::Options& options, const std::string& origin) {
    TlsClient connection(server.port(), options);
    std::string request = Served::request("POST", "/tokenize", dump_json({{"content", "x"}}));
    const std::string host = fmt::format("Host: localhost:{}\r\nOrigin: {}", server.port(), origin);
    request.replace(request.find("Host: localhost"), std::string("Host: localhost").size(), host);
    connection.send(request);
    return connection.read_through("}");
  };
  const std::string page = fmt::format("https://localhost:{}", server.port());
  EXPECT_TRUE(contains(ask({.identity = &client}, page), "200 OK"));
  EXPECT_TRUE(contains(ask({.identity = &client}, "http" + page.substr(5)), "403 "));
  EXPECT_EQ(ask({}, page), "") << "who shows no certificate is not heard";
}

TEST(Serve, WhatCannotBeServed) {
  const TemporaryDirectory dir;
  const std::string model = tailor::testing::tiny_llama().string(), data = (dir.path() / "data").string();
  const auto fails = [&](std::vector<std::string> arguments, const char* part) {
    arguments.insert(arguments.begin(), "serve");
    arguments.insert(arguments.end(), {"--data", data});
    const Outcome r = run(arguments);
    EXPECT_NE(r.code, 0);
    EXPECT_TRUE(contains(r.err, part)) << r.err;
    EXPECT_TRUE(r.out.empty()) << r.out;
  };
  fails({}, "there is nothing to serve");
  fails({"--model", "nonesuch"}, "nonesuch");
  fails({"no/such/package"}, "no/such/package");
  fails({"--model", model, "--adapter", "support"}, "NAME=PATH");
  fails({"--model", model, "--adapter", "support=none.gguf"}, "none.gguf");
  fails({"--model", model, "--adapter", "../support=none.gguf"}, "is not a model name");
  fails({"--model", model, "--adapter", "a\nb=none.gguf"}, "is not a model name");
  fails({"--model", model, "--listen", "0.0.0.0:0"}, "key");
  fails({"--model", model, "--listen", "somewhere"}, "somewhere");
  fails({"--model", model, "--tls-certificate", "none.pem", "--tls-key", "none.pem"}, "none.pem");
  Served server({"--model", model});
  fails({"--model", model, "--port", std::to_string(server.port())}, "in use");
}

}  // namespace
}  // namespace tailor::test
