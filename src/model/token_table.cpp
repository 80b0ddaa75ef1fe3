#include "model/token_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/files.h"
#include "model/utf8.h"

namespace tailor {

namespace fs = std::filesystem;

Result<TokenJson> read_token_json(const fs::path& file) {
  TAILOR_TRY(const std::string text, read_file(file, std::uint64_t{256} << 20));
  constexpr int kDeepest = 64;  // as parse_json()
  int deepest = 0;
  TokenJson json = TokenJson::parse(
      text,
      [&](int depth, TokenJson::parse_event_t, const TokenJson&) {
        deepest = std::max(deepest, depth);
        return depth <= kDeepest;
      },
      false);
  if (json.is_discarded() || deepest > kDeepest) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: not valid JSON", file.string()), ""};
  }
  return json;
}

TokenTable::TokenTable(std::vector<std::string>& tokens, std::vector<std::int32_t>& types, std::int64_t rows)
    : tokens_(tokens), types_(types), taken_(static_cast<std::size_t>(rows)) {
  tokens_.assign(taken_.size(), "");
  types_.assign(taken_.size(), kUnusedToken);
}

Status TokenTable::place(const fs::path& file, const TokenJson& id, const std::string& token, std::int32_t type,
                         bool over) {
  if (!id.is_number_integer() || id.get<std::int64_t>() < 0) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: the id of '{}' is not a number", file.string(), token),
                 ""};
  }
  const auto i = id.get<std::uint64_t>();
  if (i >= taken_.size()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: token '{}' has id {}, but the model has {} embedding rows", file.string(), token, i,
                             taken_.size()),
                 "the vocabulary belongs to another model"};
  }
  const auto [it, fresh] = ids_.emplace(token, static_cast<std::int32_t>(i));
  if ((taken_[i] && tokens_[i] != token && !over) || (!fresh && it->second != static_cast<std::int32_t>(i))) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: token '{}' and id {} do not belong to each other alone", file.string(), token, i),
                 ""};
  }
  if (taken_[i] && tokens_[i] != token) ids_.erase(tokens_[i]);
  tokens_[i] = token;
  types_[i] = type;
  taken_[i] = true;
  return {};
}

std::int32_t TokenTable::find(const std::string& token) const {
  const auto it = ids_.find(token);
  return it == ids_.end() ? -1 : it->second;
}

void TokenTable::fill_up() {
  for (std::size_t i = 0; i < taken_.size(); ++i) {
    if (!taken_[i]) tokens_[i] = fmt::format("[PAD{}]", i);
  }
}

Result<std::pair<std::string, std::string>> read_merge(const fs::path& file, const TokenTable& table,
                                                       const TokenJson& merge) {
  std::string left, right;
  if (merge.is_string()) {
    const auto line = merge.get<std::string>();
    const std::size_t blank = line.find(' ');
    left = line.substr(0, blank);
    if (blank != std::string::npos) right = line.substr(blank + 1);
  } else {
    left = merge.at(0).get<std::string>();
    right = merge.at(1).get<std::string>();
  }
  if (left.empty() || right.empty() || table.find(left) < 0 || table.find(right) < 0 || table.find(left + right) < 0) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: the merge of '{}' and '{}' does not fit the vocabulary", file.string(), left, right),
                 "the files belong to different models"};
  }
  return std::pair{std::move(left), std::move(right)};
}

Status add_merge(const fs::path& file, const TokenTable& table, const TokenJson& merge,
                 std::vector<std::string>& merges) {
  TAILOR_TRY(const auto sides, read_merge(file, table, merge));
  merges.push_back(sides.first + " " + sides.second);
  return {};
}

std::string byte_letter(std::uint32_t byte) {
  const auto printable = [](std::uint32_t b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  };
  std::uint32_t code = byte;
  if (!printable(byte)) {
    code = 256;
    for (std::uint32_t b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
  }
  std::string letter;
  append_utf8(code, letter);
  return letter;
}

}  // namespace tailor
