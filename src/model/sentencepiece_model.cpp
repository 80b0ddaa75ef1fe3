#include "model/sentencepiece_model.h"

#include <fmt/format.h>

#include <cstring>
#include <string_view>

#include "core/files.h"

namespace tailor {
namespace {

/// Protocol buffers' wire format: fields of (number, kind, value).
class Message {
 public:
  explicit Message(std::string_view bytes) : rest_(bytes) {}
  /// False at the end or where the bytes do not follow the format (then is_broken()).
  bool next() {
    if (rest_.empty() || broken_) return false;
    std::uint64_t tag = 0;
    if (!varint(tag)) return fail();
    field_ = tag >> 3;
    switch (tag & 7) {
      case 0:
        return varint(number_) || fail();
      case 1:
        return take(8) || fail();
      case 2: {
        std::uint64_t length = 0;
        return (varint(length) && take(length)) || fail();
      }
      case 5:
        return take(4) || fail();
      default:
        return fail();
    }
  }
  bool is_broken() const { return broken_; }
  std::uint64_t field() const { return field_; }
  std::uint64_t number() const { return number_; }
  std::int32_t id() const { return static_cast<std::int32_t>(number_); }
  std::string_view bytes() const { return bytes_; }
  float real() const {
    float value = 0;
    if (bytes_.size() == 4) std::memcpy(&value, bytes_.data(), 4);
    return value;
  }

 private:
  bool fail() {
    broken_ = true;
    return false;
  }
  bool varint(std::uint64_t& value) {
    value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) return false;
      const auto byte = static_cast<unsigned char>(rest_[0]);
      rest_.remove_prefix(1);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if ((byte & 0x80) == 0) return true;
    }
    return false;
  }
  bool take(std::uint64_t length) {
    if (length > rest_.size()) return false;
    bytes_ = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return true;
  }
  std::string_view rest_, bytes_;
  std::uint64_t field_ = 0, number_ = 0;
  bool broken_ = false;
};

bool read_piece(std::string_view bytes, SentencePieceModel& model) {
  SentencePieceModel::Piece piece;
  Message m(bytes);
  while (m.next()) {
    if (m.field() == 1) piece.text = m.bytes();
    if (m.field() == 2) piece.score = m.real();
    if (m.field() == 3) piece.type = m.id();
  }
  model.pieces.push_back(std::move(piece));
  return !m.is_broken();
}

bool read_trainer(std::string_view bytes, SentencePieceModel& model) {
  Message m(bytes);
  while (m.next()) {
    if (m.field() == 3) model.is_bpe = m.number() == 2;
    if (m.field() == 35) model.byte_fallback = m.number() != 0;
    if (m.field() == 40) model.unk = m.id();
    if (m.field() == 41) model.bos = m.id();
    if (m.field() == 42) model.eos = m.id();
    if (m.field() == 43) model.pad = m.id();
  }
  return !m.is_broken();
}

bool read_normalizer(std::string_view bytes, SentencePieceModel& model) {
  Message m(bytes);
  while (m.next()) {
    if (m.field() == 2) model.normalizes = !m.bytes().empty();
    if (m.field() == 3) model.add_dummy_prefix = m.number() != 0;
    if (m.field() == 4) model.remove_extra_whitespaces = m.number() != 0;
  }
  return !m.is_broken();
}

}  // namespace

Result<SentencePieceModel> read_sentencepiece_model(const std::filesystem::path& file) {
  TAILOR_TRY(const std::string bytes, read_file(file, std::uint64_t{256} << 20));
  SentencePieceModel model;
  Message m(bytes);
  bool good = true;
  while (good && m.next()) {
    if (m.field() == 1) good = read_piece(m.bytes(), model);
    if (m.field() == 2) good = read_trainer(m.bytes(), model);
    if (m.field() == 3) good = read_normalizer(m.bytes(), model);
  }
  if (!good || m.is_broken() || model.pieces.empty()) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: not a SentencePiece model", file.string()),
                 "the file is damaged or incomplete; fetch it again"};
  }
  for (std::size_t i = 0; i < model.pieces.size(); ++i) {
    const SentencePieceModel::Piece& piece = model.pieces[i];
    if (piece.type < 1 || piece.type > 6) {
      return Error{ErrorCode::kCorruptData,
                   fmt::format("{}: piece {} has the unknown type {}", file.string(), i, piece.type), ""};
    }
  }
  return model;
}

}  // namespace tailor
