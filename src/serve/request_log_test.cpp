// Lines of the log: what they say, what they never say, and where they go.

#include "serve/request_log.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>

#include "core/files.h"
#include "serve/test_api.h"
#include "store/store.h"
#include "store/store_testing.h"

namespace tailor {
namespace {

using test::TestApi;

unsigned mode_of(const std::filesystem::path& file) {
  struct stat status {};
  return stat(file.c_str(), &status) == 0 ? status.st_mode & 0777 : 0;
}

/// An API that logs to a file.
struct Logged {
  explicit Logged(RequestLogOptions options = {}, ApiLimits limits = {}, Authenticator* door = nullptr)
      : sink(LogSink::open({.file = file}).value()), log(*sink, options) {
    ApiServerOptions api_options;
    api_options.limits = limits;
    api_options.observers.push_back(&log);
    api.emplace(std::move(api_options), ModelLoadOptions{}, door);
  }
  std::vector<Json> lines() {
    sink->flush();
    return read_jsonl(file).value();
  }
  TemporaryDirectory dir{"log"};
  std::filesystem::path file = dir.path() / "requests.log";
  std::unique_ptr<LogSink> sink;
  RequestLog log;
  std::optional<TestApi> api;
};

TEST(RequestLog, SaysWhatBecameOfATextAndNothingOfIt) {
  Logged logged;
  const test::JsonAnswer answer = logged.api->post(
      "/v1/completions",
      {{"prompt", "the secret parcel"}, {"max_tokens", 4}, {"ignore_eos", true}, {"user", "alice@example.com"}},
      "X-Request-Id: mine-1\r\nAuthorization: Bearer sk-secret\r\n");
  ASSERT_EQ(answer.status, 200);
  const std::vector<Json> lines = logged.lines();
  ASSERT_EQ(lines.size(), 1u);
  const Json& line = lines[0];
  EXPECT_EQ(line["level"], "info");
  EXPECT_EQ(line["request_id"], "mine-1");
  EXPECT_EQ(line["method"], "POST");
  EXPECT_EQ(line["route"], "/v1/completions");
  EXPECT_EQ(line["status"], 200);
  EXPECT_EQ(line["model"], "tiny");
  EXPECT_EQ(line["remote_address"], "127.0.0.1");
  EXPECT_EQ(line["prompt_tokens"], answer.json["usage"]["prompt_tokens"]);
  EXPECT_EQ(line["answer_tokens"], 4);
  EXPECT_EQ(line["finish_reasons"], Json({"length"}));
  EXPECT_GT(line["bytes_in"].get<int>(), 20);
  EXPECT_GT(line["bytes_out"].get<int>(), 100);
  EXPECT_GE(line["total_ms"].get<double>(), line["first_token_ms"].get<double>());
  EXPECT_EQ(line["ts"].get<std::string>().size(), std::string("2026-11-30T05:59:22.123Z").size());
  const std::string all = read_file(logged.file).value();
  for (const char* never : {"secret", "parcel", "alice", "Bearer"})
    EXPECT_EQ(all.find(never), std::string::npos) << never;
  EXPECT_EQ(all.find(answer.json["choices"][0]["text"].get<std::string>()), std::string::npos);
}

TEST(RequestLog, EveryAnswerHasAnIdThatItsLineHasToo) {
  Logged logged({.least = LogLevel::kDebug});
  for (const char* path : {"/v1/models", "/nothing", "/", "/assets/none", "/livez"}) {
    const test::JsonAnswer answer = logged.api->get(path);
    ASSERT_NE(answer.headers.find("X-Request-Id"), nullptr) << path;
    EXPECT_EQ(logged.lines().back()["request_id"], *answer.headers.find("X-Request-Id"));
  }
  EXPECT_EQ(logged.lines().back()["level"], "debug");
  EXPECT_FALSE(logged.lines()[1].contains("route"));
}

/// Lets everybody in under one key.
struct OneKey final : Authenticator {
  ApiResult<Principal> check(const HttpHead&, ApiScope) override {
    return Principal{.key_id = "key_a", .cache_salt = {}, .visit = nullptr};
  }
};

TEST(RequestLog, ATooLongBodyHasAnIdThatItsLineHasToo) {
  OneKey door;
  Logged logged({}, {.body_bytes = 100}, &door);
  const auto ask = [&](const std::string& id, const std::string& rest) {
    return logged.api->client().ask(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Request-Id: " + id +
        "\r\n" + rest);
  };
  const std::string chunked = "Transfer-Encoding: chunked\r\n\r\n";
  const std::pair<std::string, int> cases[] = {{"Content-Length: 101\r\n\r\n", 413},
                                               {chunked + "65\r\n" + std::string(101, 'x'), 413},
                                               {chunked + "no number\r\n", 400}};
  for (const auto& [rest, status] : cases) {
    const std::string id = "mine-" + std::to_string(rest.size());
    const test::Answer answer = ask(id, rest);
    EXPECT_EQ(answer.status, status);
    ASSERT_NE(answer.headers.find("X-Request-Id"), nullptr) << rest;
    EXPECT_EQ(*answer.headers.find("X-Request-Id"), id);
    const Json line = logged.lines().back();
    EXPECT_EQ(line["request_id"], id);
    EXPECT_EQ(line["status"], status);
    EXPECT_EQ(line["method"], "POST");
    EXPECT_EQ(line["route"], "/v1/completions");
    EXPECT_EQ(line["key_id"], "key_a");
    EXPECT_EQ(line["remote_address"], "127.0.0.1");
  }
  EXPECT_EQ(logged.lines().size(), std::size(cases));
}

TEST(RequestLog, WhatNeverBecameARequestHasAnIdToo) {
  Logged logged;
  const std::string long_field(20'000, 'x');
  for (const std::string& bytes : {std::string("NONSENSE\r\n\r\n"), "GET / HTTP/1.1\r\nHost: " + long_field}) {
    const test::Answer answer = logged.api->client().ask(bytes);
    const std::string* id = answer.headers.find("X-Request-Id");
    ASSERT_NE(id, nullptr) << answer.status;
    EXPECT_EQ(id->rfind("req-", 0), 0U);
    EXPECT_EQ(logged.lines().back()["request_id"], *id);
    EXPECT_FALSE(logged.lines().back().contains("route"));
  }
}

TEST(RequestLog, AConnectionTooManyHasAnIdThatItsLineHasToo) {
  Logged logged;
  HttpServerOptions options = test::local_options();
  options.limits.connections = 1;
  HttpServer server(logged.api->api(), options);
  server.start().value();
  const auto connect = [&] { return test::TestClient::to_port(server.endpoints()[0].port); };
  test::TestClient first = connect();
  EXPECT_EQ(first.ask("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
  test::TestClient second = connect();
  const test::Answer refused = second.read_answer();
  EXPECT_EQ(refused.status, 503);
  EXPECT_TRUE(second.closed());
  ASSERT_NE(refused.headers.find("X-Request-Id"), nullptr);
  ASSERT_NE(refused.headers.find("Retry-After"), nullptr);
  EXPECT_EQ(Json::parse(refused.body)["error"]["code"], "server_overloaded");
  const Json line = logged.lines().back();
  EXPECT_EQ(line["request_id"], *refused.headers.find("X-Request-Id"));
  EXPECT_EQ(line["status"], 503);
  EXPECT_EQ(line["remote_address"], "127.0.0.1");
  server.stop();
}

TEST(RequestLog, LeavesOutHealthAndAddressesWhereToldTo) {
  Logged logged({.addresses = false});
  for (const char* const asked : {"/livez", "/readyz", "/health", "/ping", "/version", "/", "/v1/models"})
    logged.api->get(asked);
  const std::vector<Json> lines = logged.lines();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_FALSE(lines[0].contains("remote_address"));
}

TEST(RequestLog, TheLogHasTheReasonThatAClientIsNotTold) {
  TemporaryDirectory dir("log");
  const auto sink = LogSink::open({.file = dir.path() / "log"}).value();
  JsonLogger log(*sink, LogLevel::kWarning);
  const auto store = Store::open(dir.path() / "store").value();
  TestApi api;
  api.api().services().log = &log;
  api.api().services().store = store.get();
  const std::string form =
      "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n"
      "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n{}\r\n--XX--\r\n";
  const test::Answer sent = api.client().ask(
      "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; "
      "boundary=XX\r\nContent-Length: " +
      std::to_string(form.size()) + "\r\n\r\n" + form);
  ASSERT_EQ(sent.status, 200) << sent.body;
  const std::string file = Json::parse(sent.body)["id"];
  std::filesystem::remove(store->files().content(store->files().find(file).value()));
  const test::JsonAnswer lost = api.get("/v1/files/" + file + "/content", "X-Request-Id: mine-7\r\n");
  EXPECT_EQ(lost.status, 500);
  EXPECT_EQ(lost.json["error"]["message"], "the server failed on this request; its log has the reason");
  api.get("/v1/files/none", "X-Request-Id: mine-8\r\n");
  sink->flush();
  const std::vector<Json> lines = read_jsonl(dir.path() / "log").value();
  ASSERT_EQ(lines.size(), 1U) << "what a client is told is its own matter";
  const std::string message = lines[0]["message"];
  EXPECT_EQ(lines[0]["level"], "warning");
  EXPECT_EQ(message.find("mine-7 GET /v1/files/{id}/content: "), 0U) << message;
  EXPECT_NE(message.find((dir.path() / "store").string()), std::string::npos) << message;
  EXPECT_NE(message.find("No such file"), std::string::npos) << message;
}

TEST(RequestLog, NothingFromOutsideBreaksALine) {
  TemporaryDirectory dir("log");
  const auto sink = LogSink::open({.file = dir.path() / "log"}).value();
  JsonLogger(*sink, LogLevel::kInfo)
      .warning(
          "one\r\n{\"level\":\"info\"}\x1b[2J\x7f\xc2\x9b"
          "31m\xff");
  RequestLog requests(*sink, {});
  RequestRecord record;
  record.model = "a\n\x1b]0;title\x07";
  record.status = 200;
  requests.on_request(record);
  sink->flush();
  const std::string all = read_file(dir.path() / "log").value();
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 2);
  for (const char c : all) EXPECT_TRUE(c == '\n' || (c >= 0x20 && c < 0x7f)) << static_cast<int>(c);
  EXPECT_EQ(read_jsonl(dir.path() / "log").value()[1]["model"], record.model);
}

TEST(LogSink, IsItsOwnersAlone) {
  TemporaryDirectory dir("log");
  const auto file = dir.path() / "log";
  { const auto sink = LogSink::open({.file = file}).value(); }
  EXPECT_EQ(mode_of(file), 0600u);
  chmod(file.c_str(), 0644);
  { const auto sink = LogSink::open({.file = file}).value(); }
  EXPECT_EQ(mode_of(file), 0600u);
  std::filesystem::create_symlink(file, dir.path() / "link");
  testing::expect_error(LogSink::open({.file = dir.path() / "link"}), ErrorCode::kInvalidArgument, "link");
  testing::expect_error(LogSink::open({.file = dir.path()}), ErrorCode::kIo, dir.path().string());
  testing::expect_error(LogSink::open({.file = "/dev/null"}), ErrorCode::kInvalidArgument, "/dev/null");
  testing::expect_error(LogSink::open({.file = dir.path() / "none" / "log"}), ErrorCode::kNotFound, "none");
  testing::expect_error(LogSink::open({.file = file, .max_bytes = 1000}), ErrorCode::kInvalidArgument, "1000");
}

TEST(LogSink, StaysWithinItsBytesAndBreaksNoLine) {
  TemporaryDirectory dir("log");
  const auto file = dir.path() / "log";
  constexpr std::uint64_t kMost = 128 << 10;
  const auto sink = LogSink::open({.file = file, .max_bytes = kMost}).value();
  for (int i = 0; i < 1000; ++i) {
    sink->write(dump_json({{"i", i}, {"text", std::string(500, 'x')}}));
    if (i % 100 == 0) sink->flush();
  }
  sink->flush();
  const auto older = dir.path() / "log.1";
  EXPECT_LE(std::filesystem::file_size(file) + std::filesystem::file_size(older), kMost);
  EXPECT_EQ(mode_of(older), 0600u);
  const std::vector<Json> old_lines = read_jsonl(older).value(), lines = read_jsonl(file).value();
  EXPECT_EQ(lines.back()["i"], 999);
  EXPECT_EQ(old_lines.back()["i"].get<int>() + 1, lines.front()["i"].get<int>());
  EXPECT_EQ(sink->dropped(), 0u);
}

/// A log whose clock is `passed` days from now, with lines that say so.
struct AgingLog {
  AgingLog() {
    options.now = [this] { return today(); };
  }
  std::chrono::system_clock::time_point today() const {
    return std::chrono::system_clock::now() + std::chrono::hours(24) * passed.load();
  }
  static std::string line(int day) {
    const auto at = std::chrono::system_clock::now() + std::chrono::hours(24) * day;
    return fmt::format(R"({{"ts":"{:%Y-%m-%dT%H:%M:%S}.000Z","day":{}}})",
                       fmt::gmtime(std::chrono::system_clock::to_time_t(at)), day);
  }
  /// A server that starts on a day, writes a line on each of these and stops on the last.
  void serve(int from, const std::vector<int>& days, int until) {
    passed = from;
    const auto sink = LogSink::open(options).value();
    for (const int day : days) {
      passed = day;
      sink->write(line(day));
      sink->flush();
    }
    passed = until;
  }
  static std::vector<int> days(const std::filesystem::path& file) {
    std::vector<int> out;
    for (const Json& line : read_jsonl(file).value()) out.push_back(line.at("day").get<int>());
    return out;
  }

  TemporaryDirectory dir{"log"};
  const std::filesystem::path file = dir.path() / "log", older = dir.path() / "log.1";
  std::atomic<int> passed{0};
  LogSinkOptions options{.file = file, .max_age = std::chrono::hours(24 * 10)};
};

TEST(LogSink, KeepsNoLineForLongerThanItMay) {
  AgingLog log;
  log.serve(0, {0, 4}, 4);
  EXPECT_FALSE(std::filesystem::exists(log.older));
  log.serve(4, {6}, 6);
  EXPECT_EQ(AgingLog::days(log.older), (std::vector{0, 4}));
  EXPECT_EQ(AgingLog::days(log.file), (std::vector{6}));
  // A server that starts again does not begin to count anew: by its first line the older file has two days to live.
  log.serve(8, {}, 8);
  EXPECT_EQ(AgingLog::days(log.older), (std::vector{0, 4}));
  log.serve(10, {10}, 10);
  EXPECT_FALSE(std::filesystem::exists(log.older));
  EXPECT_EQ(AgingLog::days(log.file), (std::vector{6, 10}));
  log.serve(15, {}, 15);
  EXPECT_EQ(AgingLog::days(log.older), (std::vector{6, 10}));
  EXPECT_EQ(read_file(log.file).value(), "");
  log.serve(16, {}, 16);
  EXPECT_FALSE(std::filesystem::exists(log.older));
  // Neither an old empty file nor a server that did not run makes a line go early.
  log.serve(40, {40}, 40);
  log.serve(44, {}, 44);
  EXPECT_EQ(AgingLog::days(log.file), (std::vector{40}));
  log.serve(60, {}, 60);
  EXPECT_EQ(read_file(log.file).value(), "");
  EXPECT_FALSE(std::filesystem::exists(log.older));
  log.options.max_age = std::chrono::minutes(5);
  testing::expect_error(LogSink::open(log.options), ErrorCode::kInvalidArgument, "less than an hour");
}

TEST(LogSink, LinesWithoutATimeGoByWhenTheirFileWasWrittenTo) {
  AgingLog log;
  ASSERT_TRUE(write_file_atomic(log.file, "what another program wrote\n").has_value());
  log.serve(4, {}, 4);
  EXPECT_EQ(read_file(log.file).value(), "what another program wrote\n");
  log.serve(6, {}, 6);
  EXPECT_EQ(read_file(log.older).value(), "what another program wrote\n");
  log.serve(11, {}, 11);
  EXPECT_FALSE(std::filesystem::exists(log.older));
}

TEST(LogSink, OldLinesGoThoughNothingIsWritten) {
  TemporaryDirectory dir("log");
  std::atomic<int> passed{0}, asked{0};
  LogSinkOptions options{.file = dir.path() / "log", .max_age = std::chrono::hours(72)};
  options.look_every = std::chrono::milliseconds(1);
  options.now = [&] {
    ++asked;
    asked.notify_all();
    return std::chrono::system_clock::now() + std::chrono::hours(24) * passed.load();
  };
  const auto sink = LogSink::open(options).value();
  sink->write("a line");
  sink->flush();
  for (const int day : {2, 4}) {  // the file is turned over, and then the older one goes
    passed = day;
    for (int i = 0, before = asked; i < 3; ++i, before = asked) asked.wait(before);
  }
  EXPECT_EQ(read_file(dir.path() / "log").value(), "");
  EXPECT_FALSE(std::filesystem::exists(dir.path() / "log.1"));
}

TEST(LogSink, AFileThatWasMovedAwayIsBegunAnew) {
  TemporaryDirectory dir("log");
  const auto file = dir.path() / "log";
  constexpr std::uint64_t kMost = 128 << 10;
  const auto sink = LogSink::open({.file = file, .max_bytes = kMost}).value();
  for (int i = 0; i < 4; ++i) {
    sink->write(std::string(40'000, 'x'));
    sink->flush();
    if (i == 0) std::filesystem::rename(file, dir.path() / "taken");
  }
  EXPECT_EQ(sink->dropped(), 0u);
  EXPECT_EQ(std::filesystem::file_size(file), 40'001u);
  EXPECT_LE(std::filesystem::file_size(dir.path() / "taken"), kMost);
}

TEST(LogSink, AFullDiskLeavesNoHalfLine) {
  TemporaryDirectory dir("log");
  const auto file = dir.path() / "log";
  const auto sink = LogSink::open({.file = file}).value();
  const std::vector<std::string> lines{std::string(60, 'a'), std::string(60, 'b'), std::string(60, 'c')};
  {
    const FullDisk full(100);
    for (const std::string& line : lines) sink->write(line);
    sink->flush();
  }
  EXPECT_EQ(read_file(file).value(), lines[0] + "\n");
  EXPECT_EQ(sink->dropped(), 2U) << "the first one was written";
  sink->write("when there is room again");
  sink->flush();
  EXPECT_EQ(read_file(file).value(), lines[0] + "\nwhen there is room again\n");
}

TEST(LogSink, DropsAndCountsWhatDoesNotFitItsQueue) {
  TemporaryDirectory dir("log");
  const auto sink = LogSink::open({.file = dir.path() / "log", .queue_bytes = 100}).value();
  sink->write(std::string(200, 'x'));
  sink->write("short");
  sink->flush();
  EXPECT_EQ(sink->dropped(), 1u);
  EXPECT_EQ(read_file(dir.path() / "log").value(), "short\n");
}

}  // namespace
}  // namespace tailor
