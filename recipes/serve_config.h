#pragma once
/// serve.yaml: a server's settings in a file. docs/SERVE.md describes it.

#include <filesystem>
#include <string_view>

#include "core/result.h"
#include "recipes/serve.h"

namespace tailor {

/// What the file says, the rest as it is in ServeRequest. Errors name file and line, and for an unknown key the nearest
/// known one; keys of what is not built yet are refused by name. Relative paths start at the file's directory. Whether
/// `tls` is whole is for check_tls() to say: flags may complete it.
Result<ServeRequest> read_serve_config(const std::filesystem::path& file);
Result<ServeRequest> parse_serve_config(std::string_view text, const std::filesystem::path& file);

}  // namespace tailor
