#include <boost/asio/buffer.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/container/static_vector.hpp>

#include "serve/http_transport_asio.h"

namespace tailor {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

using Buffers = boost::container::static_vector<asio::const_buffer, HttpTransport::kMaxPieces>;

IoOutcome outcome_of(const error_code& error) {
  if (!error) return IoOutcome::kOk;
  return error == asio::error::eof || error == asio::ssl::error::stream_truncated ? IoOutcome::kEnd : IoOutcome::kError;
}

Buffers buffers_of(std::span<const std::string_view> pieces) {
  Buffers buffers;
  for (const std::string_view piece : pieces.first(std::min(pieces.size(), HttpTransport::kMaxPieces))) {
    buffers.emplace_back(piece.data(), piece.size());
  }
  return buffers;
}

/// Of the peer's certificate; empty without one.
std::string common_name(SSL* connection) {
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(SSL_get1_peer_certificate(connection), X509_free);
  if (!certificate) return "";
  X509_NAME* subject = X509_get_subject_name(certificate.get());
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  unsigned char* utf8 = nullptr;
  const int n = at < 0 ? -1 : ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
  if (n < 0) return "";
  std::string name(reinterpret_cast<const char*>(utf8), static_cast<std::size_t>(n));
  OPENSSL_free(utf8);
  return name;
}

template <typename Stream>
class AsioTransport : public HttpTransport {
 public:
  template <typename... Arguments>
  explicit AsioTransport(Arguments&&... arguments) : stream_(std::forward<Arguments>(arguments)...) {}

  void read_some(std::span<char> into, std::shared_ptr<TransportOwner> owner) override {
    stream_.async_read_some(asio::buffer(into.data(), into.size()),
                            [owner = std::move(owner)](const error_code& error, std::size_t bytes) {
                              owner->on_read(outcome_of(error), bytes);
                            });
  }

  void write_some(std::span<const std::string_view> pieces, std::shared_ptr<TransportOwner> owner) override {
    stream_.async_write_some(buffers_of(pieces),
                             [owner = std::move(owner)](const error_code& error, std::size_t bytes) {
                               owner->on_write(outcome_of(error), bytes);
                             });
  }

  void close() override {
    error_code ignored;
    stream_.lowest_layer().close(ignored);
  }

 protected:
  Stream stream_;
};

class PlainTransport final : public AsioTransport<StreamSocket> {
 public:
  using AsioTransport::AsioTransport;
  bool over_tls() const override { return false; }
  void handshake(std::shared_ptr<TransportOwner> owner) override { owner->on_handshake(IoOutcome::kOk); }
  void end_writing(std::shared_ptr<TransportOwner>) override {
    error_code ignored;
    stream_.shutdown(StreamSocket::shutdown_send, ignored);
  }
  std::string tls_client() const override { return ""; }
};

class TlsTransport final : public AsioTransport<asio::ssl::stream<StreamSocket>> {
 public:
  TlsTransport(StreamSocket socket, std::shared_ptr<asio::ssl::context> context)
      : AsioTransport(std::move(socket), *context), context_(std::move(context)) {}
  bool over_tls() const override { return true; }

  void handshake(std::shared_ptr<TransportOwner> owner) override {
    stream_.async_handshake(asio::ssl::stream_base::server, [this, owner = std::move(owner)](const error_code& error) {
      if (!error) client_ = common_name(stream_.native_handle());
      owner->on_handshake(outcome_of(error));
    });
  }

  /// Only the close_notify of TLS: the operation would then wait for the peer's, which the read under way gets.
  void end_writing(std::shared_ptr<TransportOwner> owner) override {
    stream_.async_shutdown([owner = std::move(owner)](const error_code&) {});
  }

  std::string tls_client() const override { return client_; }

 private:
  std::shared_ptr<asio::ssl::context> context_;  // outlives a reload
  std::string client_;
};

}  // namespace

std::unique_ptr<HttpTransport> make_plain_transport(StreamSocket socket) {
  return std::make_unique<PlainTransport>(std::move(socket));
}

std::unique_ptr<HttpTransport> make_tls_transport(StreamSocket socket, std::shared_ptr<asio::ssl::context> context) {
  return std::make_unique<TlsTransport>(std::move(socket), std::move(context));
}

}  // namespace tailor
