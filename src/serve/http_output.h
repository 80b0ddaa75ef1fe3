#pragma once
/// What a connection still has to send: small pieces are joined, large ones are kept as they are.

#include <array>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "serve/http_message.h"
#include "serve/http_transport.h"

namespace tailor {

class HttpOutput {
 public:
  void append(std::string_view bytes);
  void append_body(std::string body);  // taken over where it is large
  void append_body(const std::shared_ptr<const PreparedResponse>& response);
  void append_body(std::shared_ptr<const HttpFileBody> file);
  bool empty() const { return bytes_ == 0; }
  std::size_t size() const { return bytes_; }

  /// The front, for one write. The bytes stay where they are until consume(). Nothing where a file cannot be read.
  std::span<const std::string_view> front();
  void consume(std::size_t bytes);

 private:
  struct Piece {
    std::string owned;
    std::shared_ptr<const PreparedResponse> shared;  // its body instead
    std::size_t sent = 0;
    std::shared_ptr<const HttpFileBody> file;  // its bytes up to `loaded` were in `owned`, the last of them are
    std::uint64_t loaded = 0;
    bool load();  // if all that was loaded is sent; false: the file cannot be read
    bool whole() const;
    std::string_view rest() const { return std::string_view(shared ? shared->body() : owned).substr(sent); }
  };
  std::deque<Piece> pieces_;
  std::size_t in_use_ = 0;  // pieces of the front that a write reads from
  std::size_t bytes_ = 0;
  std::string spare_;  // memory of a piece that was sent
  std::array<std::string_view, HttpTransport::kMaxPieces> front_;
};

}  // namespace tailor
