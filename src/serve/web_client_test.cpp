#include "serve/web_client.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/files.h"
#include "serve/test_certificates.h"
#include "serve/test_server.h"

namespace tailor::test {
namespace {

std::string at(const TestServer& server, const std::string& path) {
  return "http://127.0.0.1:" + std::to_string(server.port) + path;
}

TEST(WebClient, AsksAndReadsTheAnswer) {
  TestHandler handler;
  handler.handle_with = [](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    const HttpHead& head = request.head;
    responder->send({200,
                     {},
                     head.method + " " + head.path + "?" + head.query + " " + *head.headers.find("Host") + " " +
                         *head.headers.find("X-Key") + " " + request.body});
  };
  const TestServer server(handler);
  const WebReply got = ask_web({.url = at(server, "/a?b=c#d"), .fields = {{"X-Key", "secret"}}}).value();
  EXPECT_EQ(got.status, 200);
  const std::string host = "127.0.0.1:" + std::to_string(server.port);
  EXPECT_EQ(got.body, "GET /a?b=c " + host + " secret ");
  const std::string long_body(300'000, 'x');
  EXPECT_EQ(ask_web({.url = at(server, ""), .fields = {{"X-Key", "k"}}, .body = long_body}).value().body,
            "POST /? " + host + " k " + long_body);
}

TEST(WebClient, AnAnswerOfAnyStatusIsOneAndRedirectsAreNotFollowed) {
  TestHandler handler;
  handler.handle_with = [](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    if (request.head.path == "/busy") return responder->send({503, {{"Retry-After", "7"}}, "busy"});
    responder->send({302, {{"Location", "/busy"}}, ""});
  };
  const TestServer server(handler);
  const WebReply busy = ask_web({.url = at(server, "/busy")}).value();
  EXPECT_EQ(busy.status, 503);
  EXPECT_EQ(busy.body, "busy");
  EXPECT_EQ(busy.retry_after_s, 7);
  EXPECT_EQ(ask_web({.url = at(server, "/moved")}).value().status, 302);
}

TEST(WebClient, WhatIsNoUrlOrNoHeader) {
  for (const char* url :
       {"", "ftp://a/b", "127.0.0.1", "http://", "http:///a", "http://a:b/", "http://a:0/", "http://a:99999/",
        "http://[::1/", "http://a b/", "http://a/\r\nX: y", "http://name:secret@127.0.0.1/"}) {
    const auto got = ask_web({.url = url});
    ASSERT_FALSE(got) << url;
    EXPECT_EQ(got.error().code, ErrorCode::kInvalidArgument) << url;
    EXPECT_EQ(to_string(got.error()).find("secret"), std::string::npos);
  }
  const auto split = ask_web({.url = "http://127.0.0.1:1/", .fields = {{"X-A", "b\r\nX-C: d"}}});
  EXPECT_EQ(split.error().message, "the header 'X-A' holds a line break");
}

TEST(WebClient, NobodyListens) {
  std::uint16_t free_port = 0;
  {
    TestHandler handler;
    free_port = TestServer(handler).port;
  }
  const auto got = ask_web({.url = "http://127.0.0.1:" + std::to_string(free_port) + "/"});
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(got.error().message.find("refused"), std::string::npos) << got.error().message;
}

TEST(WebClient, AnAnswerThatIsTooLong) {
  TestHandler handler;
  handler.handle_with = [](HttpRequest&&, std::shared_ptr<HttpResponder> responder) {
    responder->send({200, {}, std::string(1001, 'x')});
  };
  const TestServer server(handler);
  EXPECT_EQ(ask_web({.url = at(server, "/"), .max_bytes = 1001}).value().body.size(), 1001U);
  const auto got = ask_web({.url = at(server, "/"), .max_bytes = 1000});
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kCorruptData);
}

TEST(WebClient, EndsWhenItIsCancelledAndWhenTimeIsUp) {
  TestHandler handler;
  CancelToken cancel;
  std::vector<std::shared_ptr<HttpResponder>> kept;  // never answered while the client waits
  std::mutex mutex;
  handler.handle_with = [&](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
    const std::lock_guard lock(mutex);
    kept.push_back(std::move(responder));
    if (request.head.path == "/cancel") cancel.cancel();
  };
  TestServer server(handler);
  EXPECT_EQ(ask_web({.url = at(server, "/cancel"), .timeout = std::chrono::minutes(5)}, &cancel).error().code,
            ErrorCode::kCancelled);
  const auto late = ask_web({.url = at(server, "/late"), .timeout = std::chrono::milliseconds(50)});
  EXPECT_EQ(late.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(late.error().message.find("no answer within 50 ms"), std::string::npos);
  const std::lock_guard lock(mutex);
  for (const auto& responder : kept) responder->send({200, {}, ""});
}

TEST(WebClient, OfTlsOnlyACertificateThatIsTrustedAndTheHosts) {
  const TemporaryDirectory dir;
  const Identity ca = make_identity("ca"), leaf = make_identity("localhost", &ca);
  write_certificate(dir.path() / "ca.pem", ca);
  write_certificate(dir.path() / "server.pem", leaf);
  write_key(dir.path() / "server.key", leaf);
  HttpServerOptions options = local_options();
  options.endpoints[0].tls = TlsFiles{dir.path() / "server.pem", dir.path() / "server.key", {}};
  TestHandler handler;
  const TestServer server(handler, options);
  const std::string port = std::to_string(server.port);
  const auto unknown = ask_web({.url = "https://localhost:" + port + "/a"});
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().message.find("certificate verify failed"), std::string::npos) << unknown.error().message;
  setenv("SSL_CERT_FILE", (dir.path() / "ca.pem").c_str(), 1);
  const auto known = ask_web({.url = "https://localhost:" + port + "/a"});
  const auto other_name = ask_web({.url = "https://127.0.0.1:" + port + "/a"});
  unsetenv("SSL_CERT_FILE");
  EXPECT_EQ(known.value().body, "GET /a? ");
  ASSERT_FALSE(other_name);
  EXPECT_NE(other_name.error().message.find("certificate verify failed"), std::string::npos)
      << other_name.error().message;
}

}  // namespace
}  // namespace tailor::test
