#include "model/kept_files.h"

#include <fmt/format.h>

#include "core/files.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kLargest = std::uint64_t{256} << 20;
constexpr std::string_view kConfig = "config.json";
// Only these names are read and written: a GGUF file cannot name a path.
constexpr std::string_view kNames[] = {kConfig,
                                       "generation_config.json",
                                       "tokenizer.json",
                                       "tokenizer.model",
                                       "tokenizer_config.json",
                                       "special_tokens_map.json",
                                       "added_tokens.json",
                                       "chat_template.jinja",
                                       "additional_chat_templates/tool_use.jinja",
                                       "vocab.txt",
                                       "vocab.json",
                                       "merges.txt",
                                       "modules.json",
                                       "sentence_bert_config.json",
                                       "config_sentence_transformers.json",
                                       "1_Pooling/config.json"};

std::string key_of(std::string_view name) {
  return name == "tokenizer.json" ? "tokenizer.huggingface.json" : fmt::format("tailor.source.{}", name);
}

/// Bytes that may be no text.
GgufValue bytes_value(std::string_view bytes) {
  const auto type = static_cast<std::uint32_t>(GgufType::kU8);
  const std::uint64_t count = bytes.size();
  std::string encoded(reinterpret_cast<const char*>(&type), sizeof type);
  encoded.append(reinterpret_cast<const char*>(&count), sizeof count);
  encoded += bytes;
  return {GgufType::kArray, std::move(encoded)};
}

}  // namespace

Status keep_files(GgufWriter& writer, const fs::path& dir) {
  std::error_code ec;
  for (const std::string_view name : kNames) {
    if (!fs::exists(dir / name, ec)) continue;
    TAILOR_TRY(const std::string bytes, read_file(dir / name, kLargest));
    keep_file(writer, name, bytes);
  }
  return {};
}

void keep_file(GgufWriter& writer, std::string_view name, std::string_view bytes) {
  writer.set(key_of(name), name == "tokenizer.model" ? bytes_value(bytes) : GgufValue::string(bytes));
}

std::optional<std::string_view> kept_file(const GgufFile& file, std::string_view name) {
  const GgufValue* value = file.find(key_of(name));
  if (value == nullptr) return std::nullopt;
  if (value->type() != GgufType::kArray) return value->as_string();
  if (value->element_type() != GgufType::kU8) return std::nullopt;
  constexpr std::size_t kHead = 12;  // element type and count
  return std::string_view(value->encoded()).substr(kHead);
}

Status write_kept_files(const GgufFile& file, const fs::path& dir, std::vector<std::string>& written) {
  for (const std::string_view name : kNames) {
    const auto bytes = kept_file(file, name);
    if (!bytes || name == kConfig) continue;
    TAILOR_CHECK(make_directories((dir / name).parent_path()));
    TAILOR_CHECK(write_file_atomic(dir / name, *bytes));
    written.emplace_back(name);
  }
  return {};
}

}  // namespace tailor
