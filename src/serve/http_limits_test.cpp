// Deadlines and limits of the HTTP server.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <vector>

#include "core/files.h"
#include "serve/test_server.h"

namespace tailor::test {
namespace {

using std::chrono::milliseconds;

const std::string kGet = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";

/// For what must come before a deadline also on a busy machine.
constexpr milliseconds kSoon{500};

/// All deadlines far away but the ones that a test sets.
HttpServerOptions patient_options() {
  HttpServerOptions options = local_options();
  const milliseconds far{600'000};
  options.timeouts = {.handshake = far,
                      .header = far,
                      .idle = far,
                      .body = far,
                      .body_window = far,
                      .body_bytes_per_second = 0,
                      .write = far,
                      .linger = far};
  return options;
}

TEST(HttpDeadlines, AHeadThatDoesNotEndIsAnswered) {
  HttpServerOptions options = patient_options();
  options.timeouts.header = kSoon;
  TestHandler handler;
  TestServer server(handler, options);
  TestClient client = server.client();
  EXPECT_EQ(client.ask("GET / HTTP/1.1\r\nHos").status, 408);
  EXPECT_TRUE(client.closed());
  TestClient second = server.client();
  EXPECT_EQ(second.ask(kGet + "GET").status, 200);
  EXPECT_EQ(second.read_answer().status, 408) << "also after an answer";
  EXPECT_EQ(server.metrics().header_timeouts, 2U);
}

TEST(HttpDeadlines, AHeadThatDripsIsNotGivenMoreTime) {
  HttpServerOptions options = patient_options();
  options.timeouts.header = kSoon;
  TestHandler handler;
  TestServer server(handler, options);
  TestClient client = server.client();
  pollfd event{client.socket(), POLLIN, 0};
  client.send("GET / HTTP/1.1\r\nX: ");
  int sent = 0;
  while (poll(&event, 1, 5) == 0 && ++sent < 4'000) client.send("x");
  EXPECT_LT(sent, 4'000);
  EXPECT_EQ(client.read_answer().status, 408);
}

TEST(HttpDeadlines, AConnectionThatSaysNothingIsClosed) {
  HttpServerOptions options = patient_options();
  options.timeouts.header = milliseconds(40);
  TestHandler handler;
  TestServer server(handler, options);
  EXPECT_TRUE(server.client().closed());
  EXPECT_EQ(server.metrics().idle_timeouts, 1U);
}

TEST(HttpDeadlines, AnIdleConnectionIsClosedAfterItsAnswer) {
  HttpServerOptions options = patient_options();
  options.timeouts.idle = milliseconds(40);
  TestHandler handler;
  TestServer server(handler, options);
  TestClient client = server.client();
  EXPECT_EQ(client.ask(kGet).status, 200);
  EXPECT_TRUE(client.closed());
  EXPECT_EQ(server.metrics().idle_timeouts, 1U);
  EXPECT_TRUE(server.no_connections());
}

TEST(HttpDeadlines, AnAnswerThatIsBeingReadIsNotIdle) {
  HttpServerOptions options = patient_options();
  options.timeouts.idle = milliseconds(40);
  TestHandler handler;
  handler.handle_with = [](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    responder->send({200, {}, std::string(request.head.path == "/long" ? 64 << 20 : 1, 'x')});
  };
  TestServer server(handler, options);
  TestClient client = server.client(), other = server.client();
  client.send("GET /long HTTP/1.1\r\nHost: test\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return server.metrics().bytes_out > 0; }));
  EXPECT_EQ(other.get("/short").status, 200);
  EXPECT_TRUE(other.closed()) << "the deadline has passed";
  const Answer answer = client.read_answer();
  EXPECT_TRUE(answer.complete) << answer.body.size();
  EXPECT_TRUE(client.closed()) << "now it is idle";
  EXPECT_EQ(server.metrics().idle_timeouts, 2U);
}

TEST(HttpDeadlines, AnAnswerMayTakeItsTime) {
  HttpServerOptions options = patient_options();
  options.timeouts.idle = options.timeouts.header = options.timeouts.body = kSoon;
  TestHandler handler;
  std::shared_ptr<HttpResponder> kept;
  Event arrived;
  handler.handle_with = [&](HttpRequest&&, std::shared_ptr<HttpResponder> responder) {
    kept = std::move(responder);
    arrived.set();
  };
  TestServer server(handler, options);
  TestClient busy = server.client();
  busy.send(kGet);
  ASSERT_TRUE(arrived.wait());
  EXPECT_TRUE(server.client().closed()) << "the deadlines have passed";
  kept->send({200, {}, "late"});
  EXPECT_EQ(busy.read_answer().body, "late");
}

TEST(HttpDeadlines, ABodyHasADeadlineAndASlowestRate) {
  const std::string half = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\nhalf";
  TestHandler handler;
  {
    HttpServerOptions options = patient_options();
    options.timeouts.body = milliseconds(40);
    TestServer server(handler, options);
    TestClient client = server.client();
    EXPECT_EQ(client.ask(half).status, 408);
    EXPECT_TRUE(client.closed());
    EXPECT_EQ(server.metrics().body_timeouts, 1U);
  }
  {
    HttpServerOptions options = patient_options();
    options.timeouts.body_window = milliseconds(40);
    options.timeouts.body_bytes_per_second = 1'000'000;
    TestServer server(handler, options);
    TestClient client = server.client();
    EXPECT_EQ(client.ask(half).status, 408);
    EXPECT_EQ(server.metrics().body_timeouts, 1U);
  }
  handler.admit_with = [](const HttpHead&) {
    HttpAdmission admission;
    admission.max_body_bytes = 1000;
    admission.body_timeout = milliseconds(40);
    return admission;
  };
  HttpServerOptions options = patient_options();
  options.timeouts.linger = milliseconds(40);  // ticks follow the server's own deadlines
  TestServer server(handler, options);
  EXPECT_EQ(server.ask(half).status, 408) << "the handler's own deadline";
  handler.admit_with = [](const HttpHead&) {
    HttpAdmission admission;
    admission.refusal = HttpResponse{404, {}, ""};
    return admission;
  };
  options.timeouts.body = milliseconds(40);
  TestServer refusing(handler, options);
  TestClient client = refusing.client();
  EXPECT_EQ(client.ask(half).status, 404);
  EXPECT_TRUE(client.closed()) << "the refused body is not waited for";
}

TEST(HttpDeadlines, AReaderThatTakesNothingIsDisconnected) {
  HttpServerOptions options = patient_options();
  options.timeouts.write = milliseconds(60);
  TestHandler handler;
  handler.handle_with = [](HttpRequest&&, std::shared_ptr<HttpResponder> responder) {
    responder->send({200, {}, std::string(64 << 20, 'x')});
  };
  TestServer server(handler, options);
  TestClient client = server.client();
  client.send(kGet);
  EXPECT_TRUE(eventually([&] { return server.metrics().write_timeouts == 1; }));
  EXPECT_TRUE(server.no_connections());
  EXPECT_FALSE(client.read_answer().complete);
}

TEST(HttpDeadlines, AReaderWithAFullPipelineIsDisconnected) {
  HttpServerOptions options = patient_options();
  options.timeouts.write = milliseconds(60);
  TestHandler handler;
  handler.handle_with = [](HttpRequest&&, std::shared_ptr<HttpResponder> responder) {
    responder->send({200, {}, std::string(100 << 10, 'x')});
  };
  TestServer server(handler, options);
  TestClient client = server.client();
  fcntl(client.socket(), F_SETFL, O_NONBLOCK);
  const std::string many = kGet + kGet + kGet + kGet;
  while (client.send(many)) {
  }
  EXPECT_TRUE(server.no_connections());
  EXPECT_LT(server.metrics().requests, 10'000U) << "answers wait for their reader";
}

TEST(HttpDeadlines, AClientThatDoesNotCloseIsNotWaitedForLong) {
  HttpServerOptions options = patient_options();
  options.timeouts.linger = milliseconds(40);
  TestHandler handler;
  TestServer server(handler, options);
  TestClient client = server.client();
  EXPECT_EQ(client.ask("BAD\r\n\r\n").status, 400);
  EXPECT_TRUE(client.closed());
  EXPECT_TRUE(server.no_connections());
}

TEST(HttpLimits, TooManyConnectionsAreRefused) {
  HttpServerOptions options = patient_options();
  options.limits.connections = 2;
  TestHandler handler;
  TestServer server(handler, options);
  TestClient first = server.client(), second = server.client();
  EXPECT_EQ(first.ask(kGet).status, 200);
  EXPECT_EQ(second.ask(kGet).status, 200);
  TestClient third = server.client();
  const Answer answer = third.read_answer();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.count("Retry-After"), 1U);
  EXPECT_TRUE(answer.complete);
  EXPECT_NE(answer.body.find("too many connections"), std::string::npos) << answer.body;
  EXPECT_TRUE(third.closed());
  EXPECT_EQ(server.metrics().refused_connections, 1U);
  first.close();
  EXPECT_TRUE(eventually([&] { return server.metrics().open_connections == 1; }));
  EXPECT_EQ(server.client().ask(kGet).status, 200) << "there is room again";
}

TEST(HttpLimits, OneAddressCannotTakeAllConnections) {
  const TemporaryDirectory dir;
  HttpServerOptions options = patient_options();
  options.limits.connections_per_address = 1;
  options.endpoints.push_back({.unix_path = dir.path() / "s"});
  TestHandler handler;
  TestServer server(handler, options);
  TestClient first = server.client();
  EXPECT_EQ(first.ask(kGet).status, 200);
  EXPECT_EQ(server.client().read_answer().status, 503);
  EXPECT_EQ(server.metrics().refused_addresses, 1U);
  TestClient one = TestClient::to_unix(dir.path() / "s"), two = TestClient::to_unix(dir.path() / "s");
  EXPECT_EQ(one.ask(kGet).status, 200);
  EXPECT_EQ(two.ask(kGet).status, 200) << "a Unix socket has no addresses";
}

TEST(HttpLimits, BodiesTogetherTakeOnlySoMuchMemory) {
  HttpServerOptions options = patient_options();
  options.limits.body_memory_bytes = 1000;
  TestHandler handler;
  TestServer server(handler, options);
  TestClient holder = server.client();
  holder.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 901\r\n\r\n" + std::string(900, 'x'));
  ASSERT_TRUE(eventually([&] { return server.metrics().bytes_in > 900; }));
  const Answer refused = server.ask(post("/", std::string(200, 'y')));
  EXPECT_EQ(refused.status, 503);
  EXPECT_NE(refused.headers.find("Retry-After"), nullptr);
  EXPECT_EQ(holder.ask("x").status, 200);
  EXPECT_EQ(server.ask(post("/", std::string(200, 'y'))).status, 200) << "what was answered is not counted";
}

TEST(HttpLimits, BodiesThatWaitForTheirHandlerAreCounted) {
  HttpServerOptions options = patient_options();
  options.limits.body_memory_bytes = 1000;
  TestHandler handler;
  std::mutex mutex;
  std::vector<std::pair<HttpRequest, std::shared_ptr<HttpResponder>>> waiting;
  handler.handle_with = [&](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    const std::lock_guard lock(mutex);
    if (waiting.empty()) return waiting.emplace_back(std::move(request), std::move(responder)), void();
    responder->send({200, {}, "at once"});
  };
  TestServer server(handler, options);
  TestClient first = server.client();
  first.send(post("/", std::string(900, 'x')));
  ASSERT_TRUE(eventually([&] {
    const std::lock_guard lock(mutex);
    return !waiting.empty();
  }));
  EXPECT_EQ(server.ask(post("/", std::string(200, 'y'))).status, 503);
  waiting[0].first = {};  // it has been parsed
  EXPECT_EQ(server.ask(post("/", std::string(200, 'y'))).status, 200);
  waiting[0].second->send({200, {}, "late"});
  EXPECT_EQ(first.ask("").status, 200);
}

TEST(HttpLimits, AHandlersOwnRetryAfterStandsAlone) {
  struct TellsWhen : TestHandler {
    HttpResponse error_response(int status, std::string_view, const std::shared_ptr<void>&) override {
      return {status, {{"Retry-After", "7"}}, ""};
    }
  };
  HttpServerOptions options = patient_options();
  options.limits.body_memory_bytes = 100;
  TellsWhen handler;
  TestServer server(handler, options);
  const Answer refused = server.ask(post("/", std::string(200, 'y')));
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.count("Retry-After"), 1U);
  EXPECT_EQ(*refused.headers.find("Retry-After"), "7");
}

TEST(HttpLimits, FieldsAndTargetsAsSet) {
  HttpServerOptions options = patient_options();
  options.limits.parser = {.header_bytes = 512, .header_count = 2, .target_bytes = 100};
  TestHandler handler;
  TestServer server(handler, options);
  EXPECT_EQ(server.ask("GET / HTTP/1.1\r\nHost: t\r\nA: 1\r\n\r\n").status, 200);
  EXPECT_EQ(server.ask("GET / HTTP/1.1\r\nHost: t\r\nA: 1\r\nB: 1\r\n\r\n").status, 431);
  EXPECT_EQ(server.ask("GET / HTTP/1.1\r\nHost: " + std::string(600, 't')).status, 431);
  EXPECT_EQ(server.ask("GET /" + std::string(100, 't') + " HTTP/1.1\r\n").status, 414);
}

TEST(HttpLimits, OutOfDescriptorsTheServerWaits) {
  TestHandler handler;
  TestServer server(handler, patient_options());
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const int highest = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  rlimit few = before;
  few.rlim_cur = static_cast<rlim_t>(highest) + 8;
  setrlimit(RLIMIT_NOFILE, &few);
  std::vector<int> fillers{highest};
  for (int fd; (fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) fillers.push_back(fd);
  ::close(fillers.back());
  fillers.pop_back();
  TestClient client = server.client();  // takes the last one
  client.send(kGet);
  EXPECT_TRUE(eventually([&] { return server.metrics().accept_errors > 0; }));
  for (const int fd : fillers) ::close(fd);
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(client.read_answer().status, 200);
  EXPECT_LT(server.metrics().accept_errors, 1'000U) << "it does not spin";
}

}  // namespace
}  // namespace tailor::test
