#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/files.h"
#include "serve/test_certificates.h"
#include "serve/test_server.h"
#include "serve/test_tls_client.h"

namespace tailor::test {
namespace {

using testing::HasSubstr;

const std::string kGet = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";

class HttpTls : public testing::Test {
 protected:
  HttpTls() {
    write_certificate(files.certificate, identity);
    write_key(files.key, identity);
    handler.handle_with = [](HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
      responder->send(
          {200, {}, (request.head.over_tls ? "tls " : "plain ") + request.head.tls_client + request.body + "\n"});
    };
  }
  HttpServerOptions options() const {
    HttpServerOptions made = local_options();
    made.endpoints[0].tls = files;
    return made;
  }
  Error start_error() {
    HttpServer server(handler, options());
    const Status status = server.start();
    return status ? Error{ErrorCode::kInternal, "started", ""} : status.error();
  }

  TemporaryDirectory dir;
  Identity identity = make_identity("first");
  TlsFiles files{.certificate = dir.path() / "cert.pem", .key = dir.path() / "key.pem"};
  TestHandler handler;
};

TEST_F(HttpTls, AnswersAndKeepsTheConnection) {
  TestServer server(handler, options());
  TlsClient client(server.port, {});
  ASSERT_TRUE(client.connected);
  EXPECT_STREQ(SSL_get_version(client.ssl()), "TLSv1.3");
  client.send(kGet);
  EXPECT_THAT(client.read_through("tls \n"), HasSubstr("HTTP/1.1 200 OK"));
  const std::string body(300'000, 'b');
  client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 300000\r\nConnection: close\r\n\r\n" + body);
  EXPECT_THAT(client.read_through(body + "\n"), HasSubstr("tls bbb"));
  EXPECT_TRUE(client.ended_cleanly());
  client.socket().close();
  EXPECT_TRUE(server.no_connections());
}

TEST_F(HttpTls, ADrainHearsWhoComes) {
  TestServer server(handler, options());
  TlsClient kept(server.port, {});
  kept.send(kGet);
  EXPECT_THAT(kept.read_through("tls \n"), HasSubstr("200 OK"));
  server.server.drain();
  TlsClient fresh(server.port, {});
  for (TlsClient* client : {&kept, &fresh}) {
    ASSERT_TRUE(client->connected);
    client->send(kGet);
    EXPECT_THAT(client->read_through("tls \n"), HasSubstr("Connection: close"));
    EXPECT_TRUE(client->ended_cleanly());
  }
}

TEST_F(HttpTls, BrowsersAreToldToKeepToItWhereAsked) {
  HttpServerOptions kept = options();
  kept.hsts = std::chrono::hours(24);
  kept.endpoints.push_back({.host = "127.0.0.1"});  // a plain one beside it
  TestServer server(handler, kept);
  TlsClient client(server.port, {});
  ASSERT_TRUE(client.connected);
  client.send(kGet);
  EXPECT_THAT(client.read_through("tls \n"), HasSubstr("\r\nStrict-Transport-Security: max-age=86400\r\n"));
  const Answer plain = TestClient::to_port(server.server.endpoints()[1].port).ask(kGet);
  EXPECT_EQ(plain.headers.find("Strict-Transport-Security"), nullptr) << "over plain text it would mean nothing";
  TestServer usual(handler, options());
  TlsClient second(usual.port, {});
  second.send(kGet);
  EXPECT_THAT(second.read_through("tls \n"), testing::Not(HasSubstr("Strict-Transport-Security")));
}

TEST_F(HttpTls, OldProtocolsAndPlainTextAreRefused) {
  TestServer server(handler, options());
  EXPECT_FALSE(TlsClient(server.port, {.max_version = TLS1_1_VERSION}).connected);
  EXPECT_FALSE(TlsClient(server.port, {.max_version = TLS1_2_VERSION, .ciphers = "AES128-SHA:ECDHE-ECDSA-AES128-SHA"})
                   .connected);
  EXPECT_TRUE(TlsClient(server.port, {.max_version = TLS1_2_VERSION}).connected);
  TestClient plain = server.client();
  plain.send(kGet);
  EXPECT_EQ(plain.read_to_end().find("HTTP/"), std::string::npos);
  EXPECT_EQ(server.metrics().handshake_errors, 3U);
  EXPECT_EQ(server.metrics().requests, 0U);
}

TEST_F(HttpTls, AHandshakeHasADeadline) {
  HttpServerOptions hurried = options();
  hurried.timeouts.handshake = std::chrono::milliseconds(40);
  TestServer server(handler, hurried);
  EXPECT_TRUE(server.client().closed());
  EXPECT_EQ(server.metrics().handshake_timeouts, 1U);
}

TEST_F(HttpTls, ClientsShowTheirCertificate) {
  const Identity authority = make_identity("authority"), stranger = make_identity("stranger");
  const Identity client = make_identity("caf\xC3\xA9", &authority);
  files.client_ca = dir.path() / "ca.pem";
  write_certificate(files.client_ca, authority);
  TestServer server(handler, options());
  TlsClient known(server.port, {.identity = &client});
  known.send(kGet);
  EXPECT_THAT(known.read_through("\xA9\n"), HasSubstr("tls caf\xC3\xA9\n"));
  for (const Identity* identity_of : {static_cast<const Identity*>(nullptr), &stranger}) {
    TlsClient unknown(server.port, {.identity = identity_of});
    unknown.send(kGet);
    EXPECT_EQ(unknown.read_through("\n"), "");
  }
  EXPECT_EQ(server.metrics().requests, 1U);
}

TEST_F(HttpTls, CertificatesAreReplacedWhileRunning) {
  TestServer server(handler, options());
  TlsClient before(server.port, {});
  EXPECT_EQ(before.server_name(), "first");
  const Identity second = make_identity("second");
  write_certificate(files.certificate, second);
  const Status half = server.server.reload_tls();
  ASSERT_FALSE(half) << "the key is still the first one's";
  EXPECT_THAT(half.error().message, HasSubstr("is not the key of"));
  EXPECT_EQ(TlsClient(server.port, {}).server_name(), "first");
  write_key(files.key, second);
  server.server.reload_tls().value();
  EXPECT_EQ(TlsClient(server.port, {}).server_name(), "second");
  before.send(kGet);
  EXPECT_THAT(before.read_through("tls \n"), HasSubstr("200 OK")) << "connections stay";
}

TEST_F(HttpTls, BadFilesAreNamed) {
  const auto expect = [&](const std::string& message, const std::string& hint) {
    const Error error = start_error();
    EXPECT_THAT(error.message, HasSubstr(message));
    EXPECT_THAT(error.hint, HasSubstr(hint));
  };
  chmod(files.key.c_str(), 0640);
  expect("key.pem: others than its owner may read it (mode 640)", "chmod 600");
  write_key(files.key, identity, "password");
  expect("key.pem: ", "without a password");
  write_file_atomic(files.key, "no key").value();
  chmod(files.key.c_str(), 0600);
  expect("key.pem: ", "private key");
  write_key(files.key, make_identity("other"));
  expect("key.pem: is not the key of", "made together");
  std::filesystem::remove(files.key);
  expect("key.pem: No such file", "PEM");
  write_key(files.key, identity);
  write_file_atomic(files.certificate, "no certificate").value();
  expect("cert.pem: ", "PEM certificates");
  files.certificate = dir.path();
  expect("is not a file", "PEM");
  files.certificate = dir.path() / "cert.pem";
  write_certificate(files.certificate, identity);
  files.client_ca = dir.path() / "ca.pem";
  expect("ca.pem: No such file", "PEM");
  write_file_atomic(files.client_ca, "nothing").value();
  expect("ca.pem: ", "PEM certificates");
  write_certificate(files.client_ca, identity);
  EXPECT_EQ(start_error().message, "started");
}

TEST_F(HttpTls, AClientThatGoesIsNoticed) {
  Event arrived, disconnected;
  std::shared_ptr<HttpResponder> kept;
  handler.handle_with = [&](HttpRequest&&, std::shared_ptr<HttpResponder> responder) {
    responder->on_disconnect([&] { disconnected.set(); });
    responder->begin_stream(200, {});
    responder->write("one");
    kept = std::move(responder);
    arrived.set();
  };
  TestServer server(handler, options());
  {
    TlsClient client(server.port, {});
    client.send(kGet);
    ASSERT_TRUE(arrived.wait());
    EXPECT_THAT(client.read_through("one"), HasSubstr("one"));
  }
  EXPECT_TRUE(disconnected.wait());
  EXPECT_FALSE(kept->write("two"));
  EXPECT_TRUE(server.no_connections());
}

}  // namespace
}  // namespace tailor::test
