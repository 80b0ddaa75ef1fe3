#pragma once
/// Identity of models by content, computed once a file: the hash of a large file is remembered beside it.

#include <filesystem>
#include <string>

#include "core/result.h"

namespace tailor {

/// SHA-256 of a file. The result is kept in "<file>.sha256.json" with the file's size and modification time and used
/// again while both are the same. Where that cannot be written (a read-only place) the hash is computed each time.
Result<std::string> cached_sha256(const std::filesystem::path& file);

/// A file's cached_sha256; for a Hugging Face directory the SHA-256 of the lines "<sha256>  <relative path>\n" of the
/// files that make the model (config.json, weights, tokenizer and pooling files), sorted by path.
Result<std::string> model_sha256(const std::filesystem::path& file_or_dir);

}  // namespace tailor
