#pragma once
/// Names that become parts of paths, URLs and log lines.

#include <string_view>

#include "core/result.h"

namespace tailor {

/// ^[A-Za-z0-9._:@-]{1,128}$ without "..", not starting with "." (hidden, or the directory itself) or "-" (an option of
/// some command). `what` is the word for the error: "package name".
Status check_name(std::string_view name, std::string_view what);

/// A label people give: 1 to `most` bytes of UTF-8 without control characters.
Status check_label(std::string_view label, std::string_view what, std::size_t most = 128);

}  // namespace tailor
