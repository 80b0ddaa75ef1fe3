#include "model/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "core/decoder_layout.h"
#include "model/gguf_file.h"
#include "model/gguf_writer.h"
#include "model/kept_files.h"
#include "model/token_table.h"
#include "model/utf8.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kScores = "tokenizer.ggml.scores";
constexpr float kNoScore = -1000;  // as llama.cpp's converter gives added tokens
constexpr std::uint64_t kRowsAtOnce = 1024;

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types;
  std::vector<float> scores;  // empty: it has none
  std::size_t before = 0;     // tokens of the model; what follows only fills the table up
};

Error bad_token(const std::string& token, std::string_view what) {
  return {ErrorCode::kInvalidArgument, fmt::format("the token \"{}\" cannot be added: {}", token, what),
          "give it another spelling, such as <tool>"};
}

Status check(const std::vector<std::string>& tokens) {
  std::set<std::string> seen;
  for (const std::string& token : tokens) {
    if (token.empty()) return bad_token(token, "it is empty");
    if (!is_valid_utf8(token)) return bad_token(token, "it is not UTF-8");
    if (std::any_of(token.begin(), token.end(),
                    [](char c) { return static_cast<unsigned char>(c) <= ' ' || c == 0x7F; }))
      return bad_token(token, "it holds a blank or a control character");
    if (!seen.insert(token).second) return bad_token(token, "it is given twice");
  }
  return {};
}

Result<Vocabulary> read_vocabulary(const GgufFile& file) {
  Vocabulary v;
  const GgufValue* tokens = file.find(kTokens);
  const GgufValue* types = file.find(kTypes);
  const auto texts = tokens == nullptr ? std::nullopt : tokens->as_strings();
  const auto kinds = types == nullptr ? std::nullopt : types->as_integers();
  if (!texts || !kinds || kinds->size() != texts->size()) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: the vocabulary is incomplete", file.path().string()),
                 "use another file of this model"};
  }
  v.tokens.assign(texts->begin(), texts->end());
  for (const std::int64_t kind : *kinds) v.types.push_back(static_cast<std::int32_t>(kind));
  const GgufValue* scores = file.find(kScores);
  const auto numbers = scores == nullptr ? std::nullopt : scores->as_numbers();
  if (numbers) v.scores.assign(numbers->begin(), numbers->end());
  v.before = v.tokens.size();
  while (v.before > 0 && v.types[v.before - 1] == kUnusedToken) --v.before;
  return v;
}

/// Gives every token its id; those that are new are put into the vocabulary.
Result<std::vector<std::int32_t>> place(const std::vector<std::string>& added, Vocabulary& v) {
  std::map<std::string_view, std::size_t> known;
  for (std::size_t i = 0; i < v.before; ++i) known.emplace(v.tokens[i], i);
  std::vector<std::int32_t> ids;
  std::vector<std::pair<std::size_t, std::string>> fresh;
  std::size_t next = v.before;
  for (const std::string& token : added) {
    if (const auto found = known.find(token); found != known.end()) {
      if (v.types[found->second] != kUserToken) {
        return bad_token(token, v.types[found->second] == kControlToken ? "it is a control token of the model"
                                                                        : "the model has it already");
      }
      ids.push_back(static_cast<std::int32_t>(found->second));
      continue;
    }
    ids.push_back(static_cast<std::int32_t>(next));
    fresh.emplace_back(next++, token);
  }
  for (auto& [id, token] : fresh) {
    if (id < v.tokens.size()) {
      v.tokens[id] = std::move(token);
      v.types[id] = kUserToken;
    } else {
      v.tokens.push_back(std::move(token));
      v.types.push_back(kUserToken);
      if (!v.scores.empty()) v.scores.push_back(kNoScore);
    }
  }
  return ids;
}

Result<std::vector<float>> mean_row(const GgufTensor& table, std::uint64_t rows) {
  const std::uint64_t width = table.shape[0];
  std::vector<double> sum(width, 0);
  for (std::uint64_t first = 0; first < rows; first += kRowsAtOnce) {
    const std::uint64_t count = std::min(kRowsAtOnce, rows - first);
    TAILOR_TRY(const std::vector<float> values, rows_to_f32(table, first, count));
    for (std::size_t i = 0; i < values.size(); ++i) sum[i % width] += values[i];
  }
  std::vector<float> mean;
  for (const double s : sum) mean.push_back(static_cast<float>(s / static_cast<double>(rows)));
  return mean;
}

/// The table with `fresh` more tokens behind the first `before`.
Status grow(const GgufTensor& table, std::size_t before, std::size_t fresh, std::size_t rows, GgufWriter& writer) {
  TAILOR_TRY(const std::vector<float> mean, mean_row(table, before));
  const std::vector<std::uint64_t> shape{table.shape[0], rows};
  std::vector<float> added;
  for (std::size_t i = 0; i < fresh; ++i) added.insert(added.end(), mean.begin(), mean.end());
  if (auto encoded = encode_tensor(table.type, added, table.shape[0])) {
    const std::size_t row_bytes = table.bytes.size() / table.shape[1];
    std::string bytes(table.bytes.substr(0, before * row_bytes));
    bytes += *encoded;
    if (bytes.size() < table.bytes.size()) bytes += table.bytes.substr(bytes.size());
    auto kept = std::make_shared<const std::string>(std::move(bytes));
    writer.add_raw(table.name, table.type, shape,
                   [kept]() -> Result<std::string_view> { return std::string_view(*kept); });
    return {};
  }
  writer.add(table.name, TensorType::kF16, shape, [&table, added, before]() -> Result<std::vector<float>> {
    TAILOR_TRY(std::vector<float> values, to_f32(table));
    const std::size_t at = before * table.shape[0];
    values.resize(std::max(values.size(), at + added.size()));
    std::copy(added.begin(), added.end(), values.begin() + static_cast<std::ptrdiff_t>(at));
    return values;
  });
  return {};
}

/// tokenizer.json and the other small files of the directory that the model was made from.
Status add_to_kept_files(const GgufFile& file, const std::vector<std::string>& tokens,
                         const std::vector<std::int32_t>& ids, std::size_t rows, GgufWriter& writer) {
  const auto change = [&](std::string_view name, const std::function<void(TokenJson&)>& edit) -> Status {
    const auto bytes = kept_file(file, name);
    if (!bytes) return {};
    TokenJson json = TokenJson::parse(*bytes, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) {
      return Error{ErrorCode::kCorruptData,
                   fmt::format("{}: the {} that it keeps is no JSON object", file.path().string(), name),
                   "import the model again"};
    }
    edit(json);
    keep_file(writer, name, json.dump(2) + "\n");
    return {};
  };
  const auto described = [](const std::string& token) {
    return TokenJson{{"content", token}, {"lstrip", false},      {"normalized", false},
                     {"rstrip", false},  {"single_word", false}, {"special", false}};
  };
  TAILOR_CHECK(change("config.json", [&](TokenJson& json) {
    if (json.contains("vocab_size")) json["vocab_size"] = rows;
  }));
  TAILOR_CHECK(change("tokenizer.json", [&](TokenJson& json) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      TokenJson one = described(tokens[i]);
      one["id"] = ids[i];
      json["added_tokens"].push_back(std::move(one));
    }
  }));
  TAILOR_CHECK(change("tokenizer_config.json", [&](TokenJson& json) {
    if (!json.contains("added_tokens_decoder")) return;
    for (std::size_t i = 0; i < tokens.size(); ++i)
      json["added_tokens_decoder"][std::to_string(ids[i])] = described(tokens[i]);
  }));
  // Tokenizers that are no tokenizer.json read them from a file of their own.
  const bool slow =
      !kept_file(file, "tokenizer.json") && (kept_file(file, "tokenizer.model") || kept_file(file, "vocab.json"));
  if (!slow && !kept_file(file, "added_tokens.json")) return {};
  const auto add = [&](TokenJson& json) {
    for (std::size_t i = 0; i < tokens.size(); ++i) json[tokens[i]] = ids[i];
  };
  if (kept_file(file, "added_tokens.json")) return change("added_tokens.json", add);
  TokenJson all = TokenJson::object();
  add(all);
  keep_file(writer, "added_tokens.json", all.dump(2) + "\n");
  return {};
}

}  // namespace

Result<std::vector<std::int32_t>> add_tokens(const fs::path& base, const std::vector<std::string>& tokens,
                                             const fs::path& out) {
  TAILOR_CHECK(check(tokens));
  TAILOR_TRY(const GgufFile file, GgufFile::open(base));
  TAILOR_TRY(const std::string architecture, file.architecture());
  if (!family_of_architecture(architecture)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: tokens are added to decoders, and the architecture is '{}'", base.string(),
                             architecture.substr(0, 64)),
                 ""};
  }
  const GgufTensor* words = file.tensor("token_embd.weight");
  TAILOR_TRY(Vocabulary v, read_vocabulary(file));
  if (words == nullptr || words->shape.size() != 2 || words->shape[1] != v.tokens.size() || v.before == 0) {
    return Error{
        ErrorCode::kCorruptData,
        fmt::format("{}: the table of words does not have the vocabulary's {} rows", base.string(), v.tokens.size()),
        "use another file of this model"};
  }
  const std::size_t before = v.before;
  TAILOR_TRY(const std::vector<std::int32_t> ids, place(tokens, v));
  std::vector<std::string> fresh;
  std::vector<std::int32_t> fresh_ids;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (static_cast<std::size_t>(ids[i]) < before) continue;
    fresh.push_back(tokens[i]);
    fresh_ids.push_back(ids[i]);
  }
  GgufWriter writer;
  for (const auto& [key, value] : file.values()) writer.set(key, value);
  writer.set(kTokens, GgufValue::strings(v.tokens));
  writer.set(kTypes, GgufValue::i32s(v.types));
  if (!v.scores.empty()) writer.set(kScores, GgufValue::f32s(v.scores));
  if (const std::string key = architecture + ".vocab_size"; file.find(key) != nullptr)
    writer.set(key, GgufValue::u32(static_cast<std::uint32_t>(v.tokens.size())));
  TAILOR_CHECK(add_to_kept_files(file, fresh, fresh_ids, v.tokens.size(), writer));
  for (const GgufTensor& tensor : file.tensors()) {
    const bool table = tensor.name == "token_embd.weight" || tensor.name == "output.weight";
    if (table && !fresh.empty()) {
      TAILOR_CHECK(grow(tensor, before, fresh.size(), v.tokens.size(), writer));
      continue;
    }
    writer.add_raw(tensor.name, tensor.type, tensor.shape,
                   [&tensor]() -> Result<std::string_view> { return tensor.bytes; });
  }
  TAILOR_CHECK(writer.write(out));
  return ids;
}

}  // namespace tailor
