// Answers in pieces, clients that go, readers that are slow.

#include <gtest/gtest.h>

#include <thread>

#include "serve/test_server.h"

namespace tailor::test {
namespace {

const std::string kGet = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";

/// A handler that keeps its responders for the test.
struct KeepingHandler : TestHandler {
  KeepingHandler() {
    handle_with = [this](HttpRequest&&, std::shared_ptr<HttpResponder> responder) {
      responder->on_disconnect([this] { disconnected.set(); });
      kept = std::move(responder);
      arrived.set();
    };
  }
  std::shared_ptr<HttpResponder> kept;
  Event arrived, disconnected;
};

TEST(HttpStream, PiecesArriveAsTheyAreWritten) {
  KeepingHandler handler;
  TestServer server(handler);
  TestClient client = server.client();
  client.send(kGet);
  ASSERT_TRUE(handler.arrived.wait());
  handler.kept->begin_stream(200, {{"Content-Type", "text/event-stream"}});
  for (int i = 0; i < 5; ++i) {
    const std::string event = "data: " + std::to_string(i) + "\n\n";
    EXPECT_TRUE(handler.kept->write(event));
    EXPECT_TRUE(client.read_through(event)) << "before the next one is written";
  }
  handler.kept->finish();
  EXPECT_FALSE(handler.kept->write("late"));
  EXPECT_TRUE(client.read_through("0\r\n\r\n"));
  client.send(kGet);
  EXPECT_FALSE(handler.kept->gone()) << "done is not gone";
}

TEST(HttpStream, ManyThreadsWriteManyStreams) {
  constexpr int kStreams = 16, kPieces = 200;
  TestHandler handler;
  std::mutex mutex;
  std::vector<std::thread> writers;
  handler.handle_with = [&](HttpRequest&&, std::shared_ptr<HttpResponder> responder) {
    const std::lock_guard lock(mutex);
    writers.emplace_back([responder] {
      responder->begin_stream(200, {});
      for (int i = 0; i < kPieces; ++i) EXPECT_TRUE(responder->write(std::to_string(i) + ","));
      responder->finish();
    });
  };
  HttpServerOptions options = local_options();
  options.io_threads = 2;
  TestServer server(handler, options);
  std::string expected;
  for (int i = 0; i < kPieces; ++i) expected += std::to_string(i) + ",";
  std::vector<TestClient> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(server.client());
    clients.back().send(kGet + kGet);
  }
  for (TestClient& client : clients) {
    for (int i = 0; i < 2; ++i) {
      const Answer answer = client.read_answer();
      EXPECT_TRUE(answer.complete);
      EXPECT_EQ(answer.body, expected);
    }
  }
  server.server.stop();
  for (std::thread& writer : writers) writer.join();
}

TEST(HttpStream, AClientThatGoesIsNoticedWhileItsAnswerIsComputed) {
  for (const bool reset : {false, true}) {
    KeepingHandler handler;
    TestServer server(handler);
    TestClient client = server.client();
    client.send(kGet);
    ASSERT_TRUE(handler.arrived.wait());
    reset ? client.abort() : client.close();
    EXPECT_TRUE(handler.disconnected.wait());
    EXPECT_TRUE(handler.kept->gone());
    EXPECT_TRUE(server.no_connections());
    EXPECT_EQ(server.metrics().disconnects, 1U);
    handler.kept->send({200, {}, "for nobody"});
  }
}

TEST(HttpStream, AClientThatGoesIsNoticedInAStreamThatIsSilent) {
  KeepingHandler handler;
  TestServer server(handler);
  TestClient client = server.client();
  client.send(kGet);
  ASSERT_TRUE(handler.arrived.wait());
  handler.kept->begin_stream(200, {});
  handler.kept->write("one");
  EXPECT_TRUE(client.read_through("one"));
  client.close();
  EXPECT_TRUE(handler.disconnected.wait());
  EXPECT_FALSE(handler.kept->write("two"));
}

TEST(HttpStream, AClientThatSendsAheadIsStillNoticed) {
  KeepingHandler handler;
  TestServer server(handler);
  TestClient client = server.client();
  client.send(kGet + "GET /next HTTP/1.1\r\nHost: t\r\n\r\n");
  ASSERT_TRUE(handler.arrived.wait());
  client.close();
  EXPECT_TRUE(handler.disconnected.wait());
}

TEST(HttpStream, ASlowReaderIsDisconnected) {
  KeepingHandler handler;
  HttpServerOptions options = local_options();
  options.limits.stream_buffer_bytes = 64 << 10;
  TestServer server(handler, options);
  TestClient client = server.client();
  client.send(kGet);
  ASSERT_TRUE(handler.arrived.wait());
  handler.kept->begin_stream(200, {});
  const std::string piece(16 << 10, 'x');
  std::size_t written = 0;
  while (handler.kept->write(piece) && written < (std::size_t{1} << 30)) written += piece.size();
  EXPECT_LT(written, std::size_t{1} << 30);
  EXPECT_TRUE(handler.disconnected.wait());
  EXPECT_FALSE(client.read_answer().complete);
  EXPECT_TRUE(server.no_connections());
  EXPECT_EQ(server.metrics().slow_readers, 1U);
}

TEST(HttpStream, AReaderThatKeepsUpMayGetMoreThanTheBuffer) {
  KeepingHandler handler;
  HttpServerOptions options = local_options();
  options.limits.stream_buffer_bytes = 64 << 10;
  TestServer server(handler, options);
  TestClient client = server.client();
  client.send(kGet);
  ASSERT_TRUE(handler.arrived.wait());
  handler.kept->begin_stream(200, {});
  const std::string piece(32 << 10, 'x');
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(handler.kept->write(piece));
    ASSERT_TRUE(client.read_through(piece));
  }
  handler.kept->finish();
  EXPECT_TRUE(client.read_through("\r\n0\r\n\r\n"));
}

TEST(HttpStream, AStreamThatIsDroppedBreaksOff) {
  KeepingHandler handler;
  TestServer server(handler);
  TestClient client = server.client();
  client.send(kGet);
  ASSERT_TRUE(handler.arrived.wait());
  handler.kept->begin_stream(200, {});
  handler.kept->write("half");
  handler.kept.reset();
  const Answer answer = client.read_answer();
  EXPECT_EQ(answer.body, "half");
  EXPECT_FALSE(answer.complete);
}

TEST(HttpStream, ASilentStreamIsKeptAlive) {
  KeepingHandler handler;
  TestServer server(handler);
  TestClient client = server.client();
  client.send(kGet);
  ASSERT_TRUE(handler.arrived.wait());
  handler.kept->begin_stream(200, {{"Content-Type", "text/event-stream"}});
  handler.kept->set_keep_alive_comment(std::chrono::milliseconds(5));
  EXPECT_TRUE(client.read_through("e\r\n: keep-alive\n\n\r\n"));
  EXPECT_TRUE(client.read_through("e\r\n: keep-alive\n\n\r\n")) << "again and again";
  handler.kept->write("data: x\n\n");
  EXPECT_TRUE(client.read_through("data: x\n\n"));
  handler.kept->finish();
  EXPECT_TRUE(client.read_through("0\r\n\r\n"));
}

TEST(HttpStream, StatusesWithoutABodyHaveNone) {
  KeepingHandler handler;
  TestServer server(handler);
  TestClient client = server.client();
  client.send(kGet);
  ASSERT_TRUE(handler.arrived.wait());
  handler.kept->begin_stream(204, {});
  handler.kept->write("ignored");
  handler.kept->finish();
  const Answer answer = client.read_answer();
  EXPECT_EQ(answer.status, 204);
  EXPECT_EQ(answer.headers.find("Transfer-Encoding"), nullptr);
  handler.handle_with = [](HttpRequest&&, std::shared_ptr<HttpResponder> responder) {
    responder->send({304, {}, "ignored"});
  };
  EXPECT_EQ(client.ask(kGet).status, 304);
  EXPECT_EQ(client.ask(kGet).status, 304) << "nothing of a body was left between them";
}

TEST(HttpStream, OnlyTheFirstAnswerCounts) {
  KeepingHandler handler;
  TestServer server(handler);
  TestClient client = server.client();
  client.send(kGet);
  ASSERT_TRUE(handler.arrived.wait());
  EXPECT_FALSE(handler.kept->write("before a head"));
  handler.kept->finish();
  handler.kept->send({200, {}, "first"});
  handler.kept->send({500, {}, "second"});
  handler.kept->begin_stream(500, {});
  EXPECT_EQ(client.read_answer().body, "first");
}

}  // namespace
}  // namespace tailor::test
