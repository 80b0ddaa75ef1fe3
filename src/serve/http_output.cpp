#include "serve/http_output.h"

#include <algorithm>
#include <utility>

#include "serve/http_file.h"

namespace tailor {
namespace {

constexpr std::size_t kLoad = 256 << 10;  // bytes of a file at a time
constexpr std::size_t kLarge = 16 << 10;  // bytes; copying less costs less than another piece of a write

}  // namespace

bool HttpOutput::Piece::load() {
  if (whole() || sent < owned.size()) return true;
  owned.resize(static_cast<std::size_t>(std::min<std::uint64_t>(kLoad, file->size() - loaded)));
  if (!file->read(loaded, owned)) return false;
  loaded += owned.size();
  sent = 0;
  return true;
}

bool HttpOutput::Piece::whole() const {
  return !file || loaded == file->size();
}

void HttpOutput::append(std::string_view bytes) {
  if (bytes.empty()) return;
  if (pieces_.size() == in_use_ || pieces_.back().shared || pieces_.back().file ||
      pieces_.back().owned.size() >= kLarge) {
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

void HttpOutput::append_body(std::shared_ptr<const HttpFileBody> file) {
  if (file->size() == 0) return;
  bytes_ += file->size();
  pieces_.emplace_back().file = std::move(file);
}

std::span<const std::string_view> HttpOutput::front() {
  for (in_use_ = 0; in_use_ < std::min(pieces_.size(), front_.size());) {
    Piece& piece = pieces_[in_use_];
    if (!piece.load()) return {};
    front_[in_use_++] = piece.rest();
    if (!piece.whole()) break;
  }
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
    if (!piece.rest().empty() || !piece.whole()) return;
    if (piece.owned.capacity() <= 2 * kLarge) {
      piece.owned.clear();
      spare_ = std::move(piece.owned);
    }
    pieces_.pop_front();
  }
}

}  // namespace tailor
