#pragma once
/// The small files of a Hugging Face directory inside the GGUF file that was made from it, byte by byte, so that the
/// directory can be made again: "tailor.source.<name>", tokenizer.json under the format's own key
/// "tokenizer.huggingface.json". Weights are not among them.

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "model/gguf_writer.h"

namespace tailor {

Status keep_files(GgufWriter& writer, const std::filesystem::path& dir);

/// Keeps `bytes` as the file of that name, which is one of those that keep_files() takes.
void keep_file(GgufWriter& writer, std::string_view name, std::string_view bytes);

/// The bytes of a kept file; nothing where it is not kept. They live as long as `file`.
std::optional<std::string_view> kept_file(const GgufFile& file, std::string_view name);

/// Writes the kept files except config.json into `dir`; adds their names to `written`.
Status write_kept_files(const GgufFile& file, const std::filesystem::path& dir, std::vector<std::string>& written);

}  // namespace tailor
