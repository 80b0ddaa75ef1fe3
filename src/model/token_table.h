#pragma once
/// What readers of Hugging Face vocabularies share: tokens by id and by text, merges, GPT-2's alphabet of bytes.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/result.h"

namespace tailor {

/// llama.cpp's token types.
inline constexpr std::int32_t kNormalToken = 1, kUnknownToken = 2, kControlToken = 3, kUserToken = 4, kUnusedToken = 5,
                              kByteToken = 6;

/// Objects as trees: core's Json keeps the order of keys and looks them up one by one, seconds for 50,000 tokens.
using TokenJson = nlohmann::json;
/// Nesting deeper than 64 is refused.
Result<TokenJson> read_token_json(const std::filesystem::path& file);

/// Places tokens by id, and finds them by text. Borrows the two lists, which must outlive it.
class TokenTable {
 public:
  TokenTable(std::vector<std::string>& tokens, std::vector<std::int32_t>& types, std::int64_t rows);
  /// Errors: an id that is no number or beyond the embedding rows, a second token for an id, a second id for a token.
  /// With `over` a token that holds the id already is replaced.
  Status place(const std::filesystem::path& file, const TokenJson& id, const std::string& token, std::int32_t type,
               bool over = false);
  std::int32_t find(const std::string& token) const;  // -1: absent
  void fill_up();                                     // ids without a token become "[PAD<id>]", unused

 private:
  std::vector<std::string>& tokens_;
  std::vector<std::int32_t>& types_;
  std::vector<bool> taken_;
  std::unordered_map<std::string, std::int32_t> ids_;
};

/// The two sides of a merge, "left right" or ["left", "right"]. It must join two tokens to a third, as the tokenizers
/// library demands.
Result<std::pair<std::string, std::string>> read_merge(const std::filesystem::path& file, const TokenTable& table,
                                                       const TokenJson& merge);
Status add_merge(const std::filesystem::path& file, const TokenTable& table, const TokenJson& merge,
                 std::vector<std::string>& merges);

/// GPT-2's alphabet: printable bytes of Latin-1 stand for themselves, the others follow from U+0100.
std::string byte_letter(std::uint32_t byte);

}  // namespace tailor
