#pragma once
/// A blocking client over TLS for tests.

#include <openssl/ssl.h>
#include <sys/time.h>

#include <csignal>
#include <memory>
#include <string>

#include "serve/test_certificates.h"
#include "serve/test_client.h"

namespace tailor::test {

/// TLS over a test client's socket.
class TlsClient {
 public:
  struct Options {
    const Identity* identity = nullptr;
    int max_version = 0;
    const char* ciphers = nullptr;
  };
  TlsClient(std::uint16_t port, const Options& options)
      : client_(TestClient::to_port(port)),
        context_(SSL_CTX_new(TLS_client_method()), SSL_CTX_free),
        ssl_(nullptr, SSL_free) {
    std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes without MSG_NOSIGNAL
    const timeval patience{20, 0};
    setsockopt(client_.socket(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (options.max_version != 0) SSL_CTX_set_max_proto_version(context_.get(), options.max_version);
    if (options.ciphers != nullptr) SSL_CTX_set_cipher_list(context_.get(), options.ciphers);
    SSL_CTX_set_security_level(context_.get(), 0);
    if (options.identity != nullptr) {
      SSL_CTX_use_certificate(context_.get(), options.identity->certificate.get());
      SSL_CTX_use_PrivateKey(context_.get(), options.identity->key.get());
    }
    ssl_.reset(SSL_new(context_.get()));
    SSL_set_fd(ssl_.get(), client_.socket());
    connected = SSL_connect(ssl_.get()) == 1;
  }
  bool send(std::string_view bytes) { return SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size())) > 0; }
  /// Up to and including `end`, or what came before the connection ended.
  std::string read_through(std::string_view end) {
    std::string out;
    char bytes[4096];
    while (out.find(end) == std::string::npos) {
      const int n = SSL_read(ssl_.get(), bytes, sizeof(bytes));
      if (n <= 0) break;
      out.append(bytes, static_cast<std::size_t>(n));
    }
    return out;
  }
  /// Whether the server said that it will send no more, instead of being cut off.
  bool ended_cleanly() {
    char byte;
    const int n = SSL_read(ssl_.get(), &byte, 1);
    return n <= 0 && SSL_get_error(ssl_.get(), n) == SSL_ERROR_ZERO_RETURN;
  }
  std::string server_name() const {
    X509* certificate = SSL_get1_peer_certificate(ssl_.get());
    if (certificate == nullptr) return "";
    char name[128] = "";
    X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name, sizeof(name));
    X509_free(certificate);
    return name;
  }
  SSL* ssl() const { return ssl_.get(); }
  TestClient& socket() { return client_; }
  bool connected = false;

 private:
  TestClient client_;
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context_;
  std::unique_ptr<SSL, decltype(&SSL_free)> ssl_;
};

}  // namespace tailor::test
