#include "model/file_hash.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "core/files.h"
#include "core/hash.h"
#include "core/json.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

bool makes_the_model(const std::string& relative) {
  static constexpr std::string_view kNames[] = {"config.json",
                                                "tokenizer.json",
                                                "tokenizer_config.json",
                                                "special_tokens_map.json",
                                                "vocab.txt",
                                                "vocab.json",
                                                "merges.txt",
                                                "added_tokens.json",
                                                "tokenizer.model",
                                                "chat_template.jinja",
                                                "additional_chat_templates/tool_use.jinja",
                                                "generation_config.json",
                                                "modules.json",
                                                "sentence_bert_config.json",
                                                "model.safetensors.index.json"};
  if (std::find(std::begin(kNames), std::end(kNames), relative) != std::end(kNames)) return true;
  if (relative.ends_with(".safetensors") && relative.find('/') == std::string::npos) return true;
  return relative.ends_with("/config.json") && relative.find("Pooling") != std::string::npos;
}

}  // namespace

Result<std::string> cached_sha256(const fs::path& file) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0) {
    return Error{errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
                 fmt::format("{}: {}", file.string(), std::strerror(errno)), ""};
  }
  const auto size = static_cast<std::int64_t>(info.st_size);
  const auto modified = static_cast<std::int64_t>(info.st_mtim.tv_sec) * 1'000'000'000 + info.st_mtim.tv_nsec;
  const fs::path note = file.string() + ".sha256.json";
  std::error_code ec;
  if (fs::exists(note, ec)) {
    const auto json = read_json(note, 4096);
    if (json && json->is_object() && json->contains("sha256") && (*json)["sha256"].is_string() &&
        (*json)["sha256"].get_ref<const std::string&>().size() == 64 && json->contains("size") &&
        (*json)["size"] == size && json->contains("modified_ns") && (*json)["modified_ns"] == modified) {
      return (*json)["sha256"].get<std::string>();
    }
  }
  TAILOR_TRY(std::string hash, sha256_file(file));
  // Only worth a note where hashing takes a noticeable time.
  if (size >= (1 << 20)) {
    [[maybe_unused]] const Status kept =
        write_json_atomic(note, Json{{"sha256", hash}, {"size", size}, {"modified_ns", modified}});
  }
  return hash;
}

Result<std::string> model_sha256(const fs::path& file_or_dir) {
  std::error_code ec;
  if (!fs::is_directory(file_or_dir, ec)) return cached_sha256(file_or_dir);
  std::vector<std::string> names;
  for (auto it = fs::recursive_directory_iterator(file_or_dir, ec); !ec && it != fs::recursive_directory_iterator();
       it.increment(ec)) {
    if (it.depth() > 1) it.disable_recursion_pending();
    const std::string relative = it->path().lexically_relative(file_or_dir).generic_string();
    if (makes_the_model(relative)) names.push_back(relative);
  }
  if (ec) return Error{ErrorCode::kIo, fmt::format("{}: {}", file_or_dir.string(), ec.message()), ""};
  std::sort(names.begin(), names.end());
  std::string lines;
  for (const std::string& name : names) {
    TAILOR_TRY(const std::string hash, cached_sha256(file_or_dir / name));
    lines += hash + "  " + name + "\n";
  }
  return sha256_hex(lines);
}

}  // namespace tailor
