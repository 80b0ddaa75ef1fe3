#include "serve/http_output.h"

#include <algorithm>
#include <utility>

namespace tailor {
namespace {

constexpr std::size_t kLarge = 16 << 10;  // bytes; copying less costs less than another piece of a write

}  // namespace

void HttpOutput::append(std::string_view bytes) {
  if (bytes.empty()) return;
  if (pieces_.size() == in_use_ || pieces_.back().shared || pieces_.back().owned.size() >= kLarge) {
    pieces_.emplace_back().owned = std::exchange(spare_, {});
  }
  pieces_.back().owned.append(bytes);
  bytes_ += bytes.size();
}

void HttpOutput::append_body(std::string body) {
  if (body.size() < kLarge) return append(body);
  bytes_ += body.size();
  pieces_.emplace_back().owned = std::move(body);
}

void HttpOutput::append_body(const std::shared_ptr<const PreparedResponse>& response) {
  if (response->body().size() < kLarge) return append(response->body());
  bytes_ += response->body().size();
  pieces_.emplace_back().shared = response;
}

std::span<const std::string_view> HttpOutput::front() {
  in_use_ = std::min(pieces_.size(), front_.size());
  for (std::size_t i = 0; i < in_use_; ++i) front_[i] = pieces_[i].rest();
  return std::span(front_).first(in_use_);
}

void HttpOutput::consume(std::size_t bytes) {
  in_use_ = 0;
  bytes_ -= bytes;
  while (!pieces_.empty()) {
    Piece& piece = pieces_.front();
    const std::size_t n = std::min(bytes, piece.rest().size());
    piece.sent += n;
    bytes -= n;
    if (!piece.rest().empty()) return;
    if (piece.owned.capacity() <= 2 * kLarge) {
      piece.owned.clear();
      spare_ = std::move(piece.owned);
    }
    pieces_.pop_front();
  }
}

}  // namespace tailor
