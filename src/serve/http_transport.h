#pragma once
/// A connection's bytes, plain or TLS, without a word of Asio: completions come as calls on the loop's thread.

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace tailor {

enum class IoOutcome { kOk, kEnd, kError };  // kEnd: the peer sends no more

class TransportOwner {
 public:
  virtual ~TransportOwner() = default;
  virtual void on_handshake(IoOutcome outcome) = 0;
  virtual void on_read(IoOutcome outcome, std::size_t bytes) = 0;
  virtual void on_write(IoOutcome outcome, std::size_t bytes) = 0;
};

/// One read and one write may be under way at a time. The owner given with each lives until its call. Threads: the
/// loop's only.
class HttpTransport {
 public:
  static constexpr std::size_t kMaxPieces = 8;
  virtual ~HttpTransport() = default;
  virtual bool over_tls() const = 0;
  virtual void handshake(std::shared_ptr<TransportOwner> owner) = 0;
  virtual void read_some(std::span<char> into, std::shared_ptr<TransportOwner> owner) = 0;
  /// Of the pieces, at most kMaxPieces, some bytes from the front; they stay until the call.
  virtual void write_some(std::span<const std::string_view> pieces, std::shared_ptr<TransportOwner> owner) = 0;
  virtual void end_writing(std::shared_ptr<TransportOwner> owner) = 0;  ///< says that no more will be sent; no call
  virtual void close() = 0;                                             ///< what is under way ends with kError
  virtual std::string tls_client() const = 0;
};

}  // namespace tailor
