#include "serve/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <thread>

#include "core/files.h"
#include "serve/test_server.h"

namespace tailor::test {
namespace {

using testing::HasSubstr;

TEST(HttpServer, AnswersAndKeepsTheConnection) {
  TestHandler handler;
  TestServer server(handler);
  TestClient client = server.client();
  const Answer first = client.get("/v1/models?a=b");
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(first.body, "GET /v1/models?a=b ");
  EXPECT_EQ(*first.headers.find("X-Content-Type-Options"), "nosniff");
  EXPECT_NE(first.headers.find("Date"), nullptr);
  EXPECT_EQ(first.headers.find("Server"), nullptr);
  EXPECT_EQ(first.headers.find("Connection"), nullptr);
  EXPECT_EQ(client.ask(post("/x", "hello")).body, "POST /x? hello");
  EXPECT_EQ(
      client.ask("POST /c HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
          .body,
      "POST /c? abcde");
  const Answer last = client.ask("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(*last.headers.find("Connection"), "close");
  EXPECT_TRUE(client.closed());
  EXPECT_EQ(server.metrics().requests, 4U);
  EXPECT_EQ(server.metrics().accepted, 1U);
}

TEST(HttpServer, TellsTheHandlerWhoAsks) {
  TestHandler handler;
  HttpHead seen;
  handler.handle_with = [&](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    seen = request.head;
    responder->send({204, {}, ""});
  };
  TestServer server(handler);
  EXPECT_EQ(server.ask("DELETE /a%20b HTTP/1.1\r\nHost: Name:80\r\nX-K: v\r\n\r\n").status, 204);
  EXPECT_EQ(seen.method, "DELETE");
  EXPECT_EQ(seen.path, "/a b");
  EXPECT_EQ(seen.host, "name");
  EXPECT_EQ(*seen.headers.find("x-k"), "v");
  EXPECT_EQ(seen.remote_address, "127.0.0.1");
  EXPECT_FALSE(seen.over_tls);
  EXPECT_FALSE(seen.over_unix_socket);
}

TEST(HttpServer, AnswersRequestsSentAheadInTheirOrder) {
  TestHandler handler;
  std::vector<std::thread> threads;
  handler.handle_with = [&](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    if (threads.size() % 2 == 0) {
      threads.emplace_back([path = request.head.path, responder] { responder->send({200, {}, path}); });
    } else {
      responder->send({200, {}, request.head.path});
      threads.emplace_back([] {});
    }
  };
  TestServer server(handler);
  TestClient client = server.client();
  std::string all;
  for (int i = 0; i < 50; ++i) all += "GET /" + std::to_string(i) + " HTTP/1.1\r\nHost: t\r\n\r\n";
  client.send(all);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(client.read_answer().body, "/" + std::to_string(i));
  server.server.stop();
  for (auto& thread : threads) thread.join();
}

TEST(HttpServer, HeadHasTheHeadersOfGetAndNoBody) {
  TestHandler handler;
  const auto prepared = std::make_shared<PreparedResponse>(HttpResponse{200, {}, "12345"});
  handler.handle_with = [&](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    if (request.head.path == "/prepared") return responder->send(prepared);
    if (request.head.path == "/whole") return responder->send({200, {}, "12345"});
    responder->begin_stream(200, {});
    responder->write("12345");
    responder->finish();
  };
  TestServer server(handler);
  TestClient client = server.client();
  for (const std::string path : {"/prepared", "/whole", "/stream"}) {
    const Answer answer = client.ask("HEAD " + path + " HTTP/1.1\r\nHost: t\r\n\r\n");
    EXPECT_EQ(answer.status, 200);
    const std::string* length = answer.headers.find("Content-Length");
    EXPECT_EQ(length == nullptr ? "" : *length, path == "/stream" ? "" : "5") << path;
    EXPECT_EQ(client.get(path).body, "12345") << path;
  }
}

TEST(HttpServer, OldClientsGetWhatTheyUnderstand) {
  TestHandler handler;
  handler.handle_with = [&](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    if (request.head.path != "/stream") return responder->send({200, {}, "whole"});
    responder->begin_stream(200, {});
    responder->write("one");
    responder->write("two");
    responder->finish();
  };
  TestServer server(handler);
  const Answer stream = server.ask("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(stream.headers.find("Transfer-Encoding"), nullptr);
  EXPECT_EQ(*stream.headers.find("Connection"), "close");
  EXPECT_EQ(stream.body, "onetwo");
  TestClient client = server.client();
  EXPECT_EQ(*client.ask("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").headers.find("Connection"), "keep-alive");
  EXPECT_EQ(client.ask("GET / HTTP/1.0\r\n\r\n").body, "whole");
  EXPECT_TRUE(client.closed());
}

TEST(HttpServer, ExceptionsAndSilenceBecomeStatus500) {
  TestHandler handler;
  handler.handle_with = [](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    if (request.head.path == "/throw") throw std::runtime_error("secret");
    if (request.head.path == "/null") responder->send(std::shared_ptr<const PreparedResponse>());
  };
  const auto take = handler.admit_with;
  handler.admit_with = [&](const HttpHead& head) {
    if (head.path == "/admit") throw std::runtime_error("secret");
    return take(head);
  };
  TestServer server(handler);
  for (const std::string path : {"/throw", "/drop", "/admit", "/null"}) {
    const Answer answer = server.client().get(path);
    EXPECT_EQ(answer.status, 500) << path;
    EXPECT_EQ(answer.body.find("secret"), std::string::npos);
  }
  EXPECT_TRUE(server.no_connections());
}

TEST(HttpServer, TheHandlerWritesErrorsInItsOwnForm) {
  class Json final : public TestHandler {
    HttpResponse error_response(int status, std::string_view message, const std::shared_ptr<void>&) override {
      return {status, {{"Content-Type", "application/json"}}, "{\"error\":\"" + std::string(message) + "\"}"};
    }
  };
  Json handler;
  TestServer server(handler);
  const Answer answer = server.ask("GET / HTTP/1.1\r\n\r\n");
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.body, "{\"error\":\"the head has no Host field\"}");
}

TEST(HttpServer, BadRequestsAreAnsweredAndTheConnectionCloses) {
  TestHandler handler;
  TestServer server(handler);
  const std::string valid = "GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n";
  const std::pair<std::string, int> cases[] = {
      {"GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + valid, 400},
      {"GET / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + valid, 400},
      {"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n" + valid, 400},
      {"GET / HTTP/1.1\r\nHost: t\r\nX: " + std::string(20'000, 'x') + "\r\n\r\n" + valid, 431},
      {"GET /" + std::string(9'000, 'x') + " HTTP/1.1\r\nHost: t\r\n\r\n" + valid, 414},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"CONNECT / HTTP/1.1\r\nHost: t\r\n\r\n" + valid, 501},
  };
  for (const auto& [bytes, status] : cases) {
    TestClient client = server.client();
    const Answer answer = client.ask(bytes);
    EXPECT_EQ(answer.status, status) << bytes.substr(0, 60);
    EXPECT_EQ(*answer.headers.find("Connection"), "close");
    EXPECT_TRUE(client.closed()) << "nothing after it is answered";
  }
  EXPECT_EQ(server.metrics().bad_requests, std::size(cases));
  EXPECT_EQ(server.client().get("/").status, 200);
}

TEST(HttpServer, AHalfClosedClientGetsWhatIsReady) {
  TestHandler handler;
  handler.handle_with = [](HttpRequest&&, std::shared_ptr<HttpResponder> responder) {
    responder->send({200, {}, std::string(4 << 20, 'x')});
  };
  TestServer server(handler);
  TestClient client = server.client();
  client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
  client.end_writing();
  const Answer answer = client.read_answer();
  EXPECT_EQ(answer.body.size(), std::size_t{4} << 20);
  EXPECT_TRUE(client.closed());
}

TEST(HttpServer, ListensAtSeveralPlacesWithSeveralThreads) {
  const TemporaryDirectory dir;
  const auto path = dir.path() / "http.sock";
  TestHandler handler;
  handler.handle_with = [](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    responder->send({200, {}, request.head.over_unix_socket ? "unix" : request.head.remote_address});
  };
  HttpServerOptions options = local_options();
  options.endpoints.push_back({.host = "::1"});
  options.endpoints.push_back({.unix_path = path, .unix_mode = 0620});
  options.io_threads = 3;
  TestServer server(handler, options);
  const auto places = server.server.endpoints();
  ASSERT_EQ(places.size(), 3U);
  EXPECT_NE(places[0].port, 0);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(server.client().get("/").body, "127.0.0.1");
    EXPECT_EQ(TestClient::to_port(places[1].port, "::1").get("/").body, "::1");
    EXPECT_EQ(TestClient::to_unix(path).get("/").body, "unix");
  }
  struct stat status {};
  ASSERT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0620U);
  TestHandler other_handler;
  TestServer other(other_handler);
  EXPECT_EQ(other.client().get("/o").body, "GET /o? ");
  server.server.stop();
  EXPECT_NE(stat(path.c_str(), &status), 0) << "the socket file is removed";
  EXPECT_EQ(other.client().get("/o").status, 200);
}

TEST(HttpServer, SaysWhyItCannotListen) {
  const TemporaryDirectory dir;
  TestHandler handler;
  TestServer first(handler);
  const auto start = [&](HttpEndpoint endpoint) {
    HttpServerOptions options;
    options.endpoints = {std::move(endpoint)};
    HttpServer server(handler, options);
    const Status status = server.start();
    return status ? Error{ErrorCode::kInternal, "started", ""} : status.error();
  };
  const Error in_use = start({.host = "127.0.0.1", .port = first.port});
  EXPECT_THAT(in_use.message, HasSubstr("port " + std::to_string(first.port)));
  EXPECT_THAT(in_use.message, HasSubstr("in use"));
  EXPECT_THAT(in_use.hint, HasSubstr("another port"));
  EXPECT_THAT(start({.host = "192.0.2.1"}).message, HasSubstr("192.0.2.1:0"));
  EXPECT_THAT(start({.host = "not a host"}).message, HasSubstr("not a host"));
  const auto file = dir.path() / "file";
  write_file_atomic(file, "precious").value();
  EXPECT_THAT(start({.unix_path = file}).message, HasSubstr("not a socket"));
  EXPECT_EQ(read_file(file).value(), "precious");
  EXPECT_THAT(start({.unix_path = dir.path() / "absent" / "s"}).message, HasSubstr("absent"));
  EXPECT_THAT(start({.unix_path = dir.path() / std::string(120, 'x')}).message, HasSubstr("longer than 107 bytes"));
  HttpServer nowhere(handler, {});
  EXPECT_FALSE(nowhere.start());
  HttpServerOptions no_threads = local_options();
  no_threads.io_threads = 0;
  EXPECT_FALSE(HttpServer(handler, no_threads).start());
}

TEST(HttpServer, ADeadUnixSocketIsReplacedAndALiveOneIsNot) {
  const TemporaryDirectory dir;
  const auto path = dir.path() / "http.sock";
  {  // as a killed server leaves it
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    const int dead = ::socket(AF_UNIX, SOCK_STREAM, 0);
    ASSERT_EQ(bind(dead, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    ::close(dead);
  }
  TestHandler handler;
  HttpServerOptions options;
  options.endpoints.push_back({.unix_path = path});
  HttpServer first(handler, options);
  first.start().value();
  HttpServer second(handler, options);
  const Status status = second.start();
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("another server is listening"));
  EXPECT_EQ(TestClient::to_unix(path).get("/").status, 200) << "the first one still serves";
}

TEST(HttpServer, DrainsWithoutLosingAnAnswer) {
  TestHandler handler;
  std::shared_ptr<HttpResponder> kept;
  Event arrived;
  handler.handle_with = [&](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    if (request.head.path != "/slow") return responder->send({200, {}, "quick"});
    kept = std::move(responder);
    arrived.set();
  };
  TestServer server(handler);
  TestClient idle = server.client(), busy = server.client();
  EXPECT_EQ(idle.get("/").status, 200);
  busy.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
  ASSERT_TRUE(arrived.wait());
  server.server.stop_accepting();
  EXPECT_TRUE(idle.closed());
  EXPECT_FALSE(server.server.wait_drained(std::chrono::milliseconds(0)));
  EXPECT_THROW(server.client(), std::runtime_error) << "the port is closed";
  kept->send({200, {}, "late"});
  const Answer answer = busy.read_answer();
  EXPECT_EQ(answer.body, "late");
  EXPECT_EQ(*answer.headers.find("Connection"), "close");
  EXPECT_TRUE(busy.closed());
  busy.close();
  EXPECT_TRUE(server.server.wait_drained(std::chrono::seconds(20)));
}

TEST(HttpServer, ADrainHearsWhoComesUntilWhatRanHasEnded) {
  const TemporaryDirectory dir("drain");
  HttpServerOptions options = local_options();
  options.endpoints.push_back({.unix_path = dir.path() / "socket"});
  TestHandler handler;
  std::shared_ptr<HttpResponder> stream, whole;
  Event both;
  handler.handle_with = [&](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    if (request.head.path == "/stream") {
      responder->begin_stream(200, {});
      stream = std::move(responder);
    } else if (request.head.path == "/whole") {
      whole = std::move(responder);
      both.set();
    } else {
      responder->send({200, {}, request.head.path});
    }
  };
  TestServer server(handler, options);
  TestClient idle = server.client(), streaming = server.client(), waiting = server.client();
  EXPECT_EQ(idle.get("/").status, 200);
  streaming.send("GET /stream HTTP/1.1\r\nHost: t\r\n\r\n");
  ASSERT_TRUE(streaming.read_through("Transfer-Encoding").has_value());
  waiting.send("GET /whole HTTP/1.1\r\nHost: t\r\n\r\n");
  ASSERT_TRUE(both.wait());
  server.server.drain();
  EXPECT_FALSE(server.server.wait_answered(std::chrono::milliseconds(0)));
  TestClient at_socket = TestClient::to_unix(dir.path() / "socket"), fresh = server.client();
  for (TestClient* client : {&fresh, &idle, &at_socket}) {
    const Answer answer = client->get("/new");
    EXPECT_EQ(answer.body, "/new");
    EXPECT_EQ(*answer.headers.find("Connection"), "close");
    EXPECT_TRUE(client->closed());
  }
  whole->send({200, {}, "late"});
  const Answer late = waiting.read_answer();
  EXPECT_EQ(late.body, "late");
  EXPECT_EQ(*late.headers.find("Connection"), "close");
  EXPECT_FALSE(server.server.wait_answered(std::chrono::milliseconds(0))) << "the stream goes on";
  stream->write("end");
  stream->finish();
  EXPECT_TRUE(streaming.read_through("end\r\n0\r\n\r\n").has_value());
  EXPECT_TRUE(server.server.wait_answered(std::chrono::seconds(20)));
  const Answer after = streaming.get("/after");
  EXPECT_EQ(after.body, "/after") << "its head did not say that the connection ends";
  EXPECT_EQ(*after.headers.find("Connection"), "close");
  TestClient last = server.client();
  EXPECT_EQ(last.get("/last").status, 200) << "the listeners close when they are told to";
}

TEST(HttpServer, ADrainWaitsForWhatCameBeforeItAlone) {
  TestHandler handler;
  TestServer server(handler);
  TestClient before = server.client(), after = server.client();
  const std::string head = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
  before.send(head);
  ASSERT_TRUE(before.read_through("100 Continue\r\n\r\n").has_value());
  server.server.drain();
  after.send(head);
  ASSERT_TRUE(after.read_through("100 Continue\r\n\r\n").has_value());
  EXPECT_FALSE(server.server.wait_answered(std::chrono::milliseconds(0))) << "a body is on its way";
  before.send("ab");
  EXPECT_EQ(before.read_answer().status, 200);
  EXPECT_TRUE(server.server.wait_answered(std::chrono::seconds(20)));
  server.server.stop_accepting();
  after.send("ab");
  EXPECT_EQ(after.read_answer().status, 200) << "but it is answered";
  before.close();
  after.close();
  EXPECT_TRUE(server.server.wait_drained(std::chrono::seconds(20)));
}

TEST(HttpServer, ADrainDoesNotWaitForWhoWentOrWasRefused) {
  TestHandler handler;
  std::shared_ptr<HttpResponder> kept;
  Event arrived;
  handler.admit_with = [](const HttpHead& head) {
    HttpAdmission out;
    if (head.path == "/no") out.refusal = HttpResponse{503, {}, "no"};
    out.max_body_bytes = 1 << 20;
    return out;
  };
  handler.handle_with = [&](HttpRequest&&, std::shared_ptr<HttpResponder> responder) {
    kept = std::move(responder);
    arrived.set();
  };
  TestServer server(handler);
  TestClient refused = server.client(), reading_past = server.client(), goes = server.client();
  EXPECT_EQ(refused.get("/no").status, 503);
  reading_past.send("POST /no HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(reading_past.read_answer().status, 503);
  goes.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
  ASSERT_TRUE(arrived.wait());
  server.server.drain();
  EXPECT_FALSE(server.server.wait_answered(std::chrono::milliseconds(0)));
  goes.abort();
  EXPECT_TRUE(server.server.wait_answered(std::chrono::seconds(20)));
}

TEST(HttpServer, StopsWithAnswersStillDue) {
  TestHandler handler;
  std::vector<std::shared_ptr<HttpResponder>> kept;
  std::atomic<int> disconnected = 0;
  Event arrived;
  handler.handle_with = [&](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    responder->on_disconnect([&] { ++disconnected; });
    kept.push_back(responder);
    if (request.head.path == "/stream") {
      responder->begin_stream(200, {});
      responder->write("one");
    }
    if (kept.size() == 2) arrived.set();
  };
  auto server = std::make_unique<TestServer>(handler);
  TestClient whole = server->client(), stream = server->client();
  whole.send("GET /whole HTTP/1.1\r\nHost: t\r\n\r\n");
  stream.send("GET /stream HTTP/1.1\r\nHost: t\r\n\r\n");
  ASSERT_TRUE(arrived.wait());
  server->server.stop();
  EXPECT_EQ(disconnected, 2);
  EXPECT_EQ(server->metrics().open_connections, 0U);
  server.reset();
  for (const auto& responder : kept) {  // all without effect, and without harm
    EXPECT_TRUE(responder->gone());
    EXPECT_FALSE(responder->write("x"));
    responder->send({200, {}, ""});
    responder->finish();
    bool at_once = false;
    responder->on_disconnect([&] { at_once = true; });
    EXPECT_TRUE(at_once);
  }
  EXPECT_FALSE(stream.read_answer().complete);
}

}  // namespace
}  // namespace tailor::test
