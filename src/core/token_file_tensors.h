#pragma once
/// The tensors that a token file is written as; for its two writers.

#include <map>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "core/token_file.h"

namespace tailor {

/// Views of the content, in the order of the file.
std::vector<SafeTensor> tensors_of(const TokenFile& content);
std::map<std::string, std::string> metadata_of(const TokenFile& content);

}  // namespace tailor
